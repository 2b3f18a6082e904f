"""What results display in notebooks: tables, figures and animations, as HTML, data frames, plots and files."""
