from gateway.admin import people as people
