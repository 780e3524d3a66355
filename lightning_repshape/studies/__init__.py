"""Studies: the tables of the papers, and of users, as data that one command trains and reports.

A study is a table: columns (scenarios), methods, and one or several figures for each cell. :mod:`.registry` reads it
from YAML, :mod:`.jobs` names the trainings a cell consists of and what state each is in, :mod:`.executors` trains
them, :mod:`.runner` decides what is next, :mod:`.results` reads run folders, :mod:`.report` writes them down.
"""
