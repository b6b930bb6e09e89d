"""libvirt's XML: domains and networks read into definitions, and written from them."""
