"""The rules, written once over an array namespace; `claims` applies them all."""
