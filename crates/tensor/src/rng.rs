//! Random generators that give the same numbers as torch.
