"""What is learnt: modules that take views and targets and yield named losses."""
