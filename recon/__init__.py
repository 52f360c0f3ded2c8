"""recon: how much of a model leaks through its explanations.

The floors of the house; an import only goes down:

    5  figures       drawn from tables alone
    4  experiments   one frozen dataclass per experiment, its cells, run() -> rows
    3  victims       named victims: trained, cached, or drawn at random
    2  exact         ReLU networks recovered exactly from gradient queries
       distill       gradient matching: a student trained on a victim's replies
    1  oracles       how a victim is asked: the one door
       replies       what a service declares and answers: View, Reply, Cost
       explanations  Jacobian, top-class gradient, SmoothGrad
       networks      recovered functions as records that can be called, saved, loaded
       models        the flax modules
       data          image data as arrays
       tables        result rows and the run record
    0  masks         ReLU and max-pool, and a derivative of which unit is on

Dimension letters used in every docstring: n queries, d inputs, K outputs,
h hidden units, T steps, R runs.  Nothing happens at import; `recon.exact` and the others are
imported by name (`from recon import oracles, exact`).
"""
