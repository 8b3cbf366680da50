# The two commands are `make up` and `make test`. Everything else is a part of them.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
VENV := .venv/bin/python

.PHONY: up down demo worker test suites check install lock sbom

up: install
	@exec $(VENV) -m gateway.runtime.up

down:
	@exec $(VENV) -m gateway.runtime.down

demo:
	@exec $(VENV) -m gateway.demo.traffic

# Sells this machine through a gateway elsewhere; the admin console prints the line. Its key is read
# from the variable WORKER_KEY: a command line can be read by every user of the machine.
worker:
	@exec $(PYTHON) -m gateway.runtime.join --gateway "$(GATEWAY)" \
		$(if $(NAME),--name "$(NAME)") $(if $(USD_PER_HOUR),--usd-per-hour "$(USD_PER_HOUR)") \
		$(if $(PORT),--port "$(PORT)") $(if $(HOST),--host "$(HOST)") \
		$(if $(QUANTISATION),--quantisation "$(QUANTISATION)")

install:
	@$(PYTHON) -m gateway.runtime.bootstrap gateway

test:
	@$(PYTHON) -m gateway.runtime.bootstrap dev worker
	@exec .ci/test

# Whole installations, official clients, browsers, benches in short.
suites:
	@$(PYTHON) -m gateway.runtime.bootstrap dev worker
	@exec .ci/suites

check:
	@$(PYTHON) -m gateway.runtime.bootstrap dev
	@exec .ci/check

lock:
	@exec $(VENV) -m gateway.runtime.lock_files

# What the lock files bring, as CycloneDX, into dist/.
sbom:
	@$(PYTHON) -m gateway.runtime.bootstrap dev
	@exec $(VENV) -m gateway.runtime.supply_chain sbom
