"""Sentences of the comparison page against the tables that they are about, for random findings."""

import re
from dataclasses import replace
from itertools import product

import numpy as np

from tests.support.served_runs import score_row
from vtcav_jax.report.comparison.differences import ScoreKey
from vtcav_jax.report.comparison.text import comparison_answers
from vtcav_jax.tcav.experiment.verdicts import is_finding

LABELS = ("cnn", "swin")
CONCEPTS = ("ring", "left", "bars")
COMPARISONS = (("absolute", "random"), ("absolute", "others"), ("absolute", "bars_only"), ("motion", "frozen"))


def random_tables(seed):
    rng = np.random.default_rng(seed)
    tables = []
    for _ in LABELS:
        table = {}
        for concept, stage, (comparison, negatives) in product(CONCEPTS, ("a", "b"), COMPARISONS):
            if rng.random() < 0.2:
                continue
            effect = float(rng.choice([-1, 1]))
            sign = "supports" if effect > 0 else "opposes"
            finding = f"motion_{sign}" if comparison == "motion" else sign
            verdict = finding if rng.random() < 0.15 else "no_evidence"
            row = score_row("left", stage, concept, np.array([effect]), 0.01, verdict)
            key = ScoreKey("left", stage, concept, "dynamic", negatives)
            table[key] = replace(row, negatives=negatives, comparison=comparison)
        tables.append(table)
    return tables


def test_sentences_say_what_the_tables_have():
    n_silent = n_elsewhere = 0
    for seed in range(200):
        tables = random_tables(seed)
        common = [key for key in tables[0] if key in tables[1]]
        sentences = dict(comparison_answers(LABELS, tables, common, []))
        silent = sentences.pop("No significant effect in any test that all runs have:", "")
        for concept in {key.concept for key in common}:
            findings = [
                (label, table[key])
                for label, table in zip(LABELS, tables, strict=True)
                for key in common
                if key.concept == concept and is_finding(table[key])
            ]
            if f"{concept} for left" in silent:
                n_silent += 1
                assert not findings, (seed, concept)
                continue
            text = sentences[f"{concept} for left:"]
            assert findings, (seed, concept)
            for negatives in ("others", "bars_only"):
                match = re.search(rf"compared with {negatives}, a significant effect in ([^;]*);", text)
                runs = {label for label, row in findings if row.negatives == negatives}
                if match:
                    n_elsewhere += 1
                    named = set(LABELS) if match[1] == "both runs" else set(match[1].split(" and "))
                    assert named == runs, (seed, text)
                else:  # it is the primary comparison, or there is no finding
                    assert not runs or negatives == "others", (seed, text)
            with_motion = {label for label, row in findings if row.comparison == "motion"}
            assert ("no significant contribution of its motion" in text) == (not with_motion)
            raised = {label for label, row in findings if row.negatives == "random" and row.derivative > 0}
            assert not raised or "raises" in text
    assert n_silent > 20 and n_elsewhere > 20
