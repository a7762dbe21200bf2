"""Neural tangent kernels and adversarial robustness."""
