"""Convolutional networks, from logits and their Jacobians: two convolutions, then two dense layers.

    corner    lines along which one position of one layer moves, all else being far away (`known`)
    channels  kernels, up to sign, from the kinks on such lines, and their signs
    kernels   what is known of a layer: its channels, which are on, and its biases
    windows   which line to ask next; layer: one convolution, until all that was seen is explained
    reading   with all convolutions known a reply shows the gradients M = df/dy in the features y
    jumps     units of the dense layer that differ between two points, by the span of M's jump
    rows      their rows: linear equations of each feature, once it is known which are on where
    orient    which side of each is on
    head      all that is known of the dense layers; choose: inputs that tell what is open of them
    steer     inputs at which chosen features are on
    dense     the whole network, held to fresh points and mended

What is proved and what is not: kernels and rows are solved for from more equations than unknowns,
every state read at the corner must be 0 or 1, and all points asked are met.  That no channel, unit
or weight is missing is probable only: one that matters at no fresh point is not seen
(`Recovery.share`).
"""
