"""The results of a run, for people and programs: rows, masks, the images that they are masks of."""
