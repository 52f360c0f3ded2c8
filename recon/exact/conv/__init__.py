"""Convolutional networks, from logits and their Jacobians: both convolutions, exactly.

    corner    lines along which one position of one layer moves, all else being far away (`known`)
    channels  kernels, up to sign, from the kinks on such lines, and their signs
    layer     one convolution: which lines are searched, what is missing, its biases
    reading   with all convolutions known a reply shows the gradients in the features

What is proved and what is not: kernels are solved for from more equations than unknowns, and every
state read at the corner must be 0 or 1.  That no channel is missing is probable only: one that is
off at every fresh point is not seen (`Recovery.share`).
"""
