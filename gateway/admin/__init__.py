from gateway.admin import list_headers as list_headers
from gateway.admin import people as people
