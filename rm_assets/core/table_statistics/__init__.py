"""What is said of the four data tables without opening them: distributions, ties, duplicates, outliers, histograms."""
