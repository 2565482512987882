"""medtune: from medical questions and answers and an open language model to a measured medical assistant."""
