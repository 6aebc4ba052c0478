# make demo       shows it at work: a throw-away server with users who come and go
# make stop       stops and removes the demo's server
# make test       runs every test, on throw-away servers; VERSIONS="16 17 18" on these versions of PostgreSQL, fetched if need be
# make test-all   runs them on every version that is supported
# make test-soak  runs the same suites for hours: crashes, races, load
# make bench      measures what it costs, side by side with the alternatives; QUICK=1 takes less than 3 minutes
# make install    installs it into the PostgreSQL that PG_CONFIG names (default: the one on the PATH)
# make deb        builds Debian packages for it, in target/deb
# make test-deb   installs, upgrades and removes them in a clean root
# make check      runs what every change must pass: formatting, lints, tests
# make clean      removes what was built
#
# Each target installs missing prerequisites. TEST=name filters the tests by name, SUITE="name ..." selects suites,
# ONLY=name one scenario of the benchmark.

export PG_CONFIG SUITE

bin := pg_test/bin

.PHONY: demo stop test test-all test-soak bench install deb test-deb setup check fmt fmt-check lint clean

demo: setup
	examples/demo/run

stop:
	examples/demo/stop

test: setup
	$(bin)/setup tests
	$(if $(VERSIONS),$(bin)/test-versions "$(VERSIONS)",$(bin)/test) $(TEST)

test-all:
	$(MAKE) test VERSIONS="15 16 17 18"

test-soak: setup
	$(bin)/setup tests
	SOAK=1 $(bin)/test $(TEST)

bench: setup
	$(bin)/setup bench
	bench/run

install: setup
	$(bin)/install

deb: setup
	$(bin)/deb

test-deb: setup
	$(bin)/setup deb
	$(bin)/test-deb

setup:
	@$(bin)/setup

check: fmt-check lint test

fmt:
	cargo fmt --all

fmt-check: setup
	cargo fmt --all --check

lint: setup
	$(bin)/lint

clean: stop
	cargo clean
