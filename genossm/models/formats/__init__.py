"""Published models (Caduceus, PlantCaduceus, HyenaDNA, Mamba, Mamba-2): their shapes, blocks and file formats."""
