"""Cases for a gateway on a board or in QEMU, and what runs them; scripts/hw-tests is the command."""
