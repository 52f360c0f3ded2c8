"""recon: how much of a model leaks through its explanations.

The floors of the house; an import only goes down:

    6  cli           `recon attack | serve | run | tune | plot | list | demo`: parse, call, print
    5  demo          networks trained on digits, recovered and rebuilt
    4  experiments   settings that run to rows; variants are rows, measurements classes
       reports       figures and claims, from rows alone; a report for the owner of a model
    3  exports       recovered networks as models of scikit-learn, PyTorch and ONNX
       victims       to attack: drawn at random, trained and kept, or brought from elsewhere
    2  exact         ReLU networks recovered exactly from gradient queries
       distill       gradient matching: a student trained on a victim's replies
    1  workers       where cells are measured
       cells         finished cells kept on disk
       ledger        every query and reply on disk before it is used
       service       retries with back-off, and a rate of calls
       oracles       how a victim is asked: the one door
       book          the SQLite file of a ledger
       replies       what a service says it shows, what it answers, what that cost
       explanations  Jacobian, top-class gradient, SmoothGrad, integrated gradients
       networks      recovered functions as records that can be called, saved, loaded
       models        the flax modules
       data          image data as arrays
       tables        result rows and the run record
       paths         the rules of integrated gradients
    0  convolutions  as products of matrices on a CPU
       masks         ReLU and max-pool, and a derivative of which unit is on
       optimizers    Adam, and Muon for kernels

Dimension letters used in every docstring: n queries, d inputs, K outputs,
h hidden units, T steps, R runs.  Nothing happens at import; `recon.exact` and the others are
imported by name (`from recon import oracles, exact`).
"""
