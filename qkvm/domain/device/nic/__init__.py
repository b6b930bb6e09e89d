"""NICs: seen, opened, plugged, held to what they may do, limited, changed."""
