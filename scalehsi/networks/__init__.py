"""Autoencoders that unmix, and a latent space. Training needs torch (extra ``networks``), all the rest does not."""
