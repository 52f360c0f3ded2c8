"""Two-layer networks from services that show less than all gradients; `attack.LESS` names them."""
