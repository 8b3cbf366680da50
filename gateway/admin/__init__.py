from gateway.admin import list_cells as list_cells
from gateway.admin import list_headers as list_headers
from gateway.admin import people as people
