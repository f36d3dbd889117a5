"""A forecaster of time series: the last rows of a table in, the next rows with an interval out."""
