"""Many pictures: contents and styles, or the rows of a manifest, painted one after the other or side by side.

`plan` says which pictures there will be and which are there already, `paint` makes them, `report` tells of them.
"""
