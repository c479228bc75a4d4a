"""The kinds of columns whose cells are media: images, recordings and point clouds."""
