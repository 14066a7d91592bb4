"""X-ray lines and EELS edges: energies, spectra, peaks, net counts and composition."""
