"""Short texts in pictures, in letters of our own: what a panel shows must be in the film itself."""

import numpy as np
from jaxtyping import Bool, UInt8

HEIGHT, ADVANCE = 7, 6  # pixels of a letter, and from one letter to the next

# Seven rows from the top, each five pixels as one digit in base 32; small letters look like capitals.
GLYPHS = {
    pair[0]: pair[2:]
    for pair in (
        "A ehhvhhh|B uhhuhhu|C ehggghe|D uhhhhhu|E vgguggv|F vgguggg|G ehgnhhf|H hhhvhhh|I e44444e|"
        "J 72222ic|K hikokih|L ggggggv|M hrllhhh|N hppljjh|O ehhhhhe|P uhhuggg|Q ehhhlid|R uhhukih|"
        "S fgge11u|T v444444|U hhhhhhe|V hhhhha4|W hhhllrh|X hha4ahh|Y hha4444|Z v1248gv|0 ehjlphe|"
        "1 4c4444e|2 eh168gv|3 eh161he|4 26aiv22|5 vgu11he|6 egguhhe|7 v122444|8 ehhehhe|9 ehhf11e|"
        ". 00000cc|, 0000c48|_ 000000v|- 000e000|+ 044v440|: 0cc0cc0|/ 11248gg|= 00v0v00|( 2488842|"
        ") 8422248|@ ehnlnge|% pp248jj|& cik8lid|# aavavaa|' 4480000|? eh16404"
    ).split("|")
}


def width(text: str) -> int:
    return max(ADVANCE * len(text) - 1, 0)


def lettered(text: str) -> Bool[np.ndarray, "7 width"]:
    """Where the ink is; a sign that has no letter is a question mark, a blank is blank."""
    ink = np.zeros((HEIGHT, ADVANCE * len(text)), bool)
    for i, sign in enumerate(text.upper()):
        rows = "0000000" if sign == " " else GLYPHS.get(sign, GLYPHS["?"])
        for y, digit in enumerate(rows):
            ink[y, ADVANCE * i : ADVANCE * i + 5] = [c == "1" for c in f"{int(digit, 32):05b}"]
    return ink[:, : width(text)]


def write(
    picture: UInt8[np.ndarray, "h w 3"], text: str, x: int, y: int, colour: tuple[int, int, int], *, most: int
) -> None:
    """Writes into `picture`, in at most `most` pixels; what is too long ends in dots."""
    if width(text) > most:
        text = text[: max(most // ADVANCE - 2, 0)] + ".."
    ink = lettered(text)
    picture[y : y + HEIGHT, x : x + ink.shape[1]][ink] = colour
