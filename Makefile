# make demo       shows it at work: a throw-away server with users who come and go
# make stop       stops and removes the demo's server
# make install    installs it into the PostgreSQL that PG_CONFIG names (default: the one on the PATH)
# make uninstall  removes it from there, and says what remains
# make deb        builds Debian packages for that PostgreSQL, in target/deb
#
# make test       runs every test, on throw-away servers; VERSIONS="16 17 18" on these versions of PostgreSQL, fetched if need be
# make test-all   runs them on every version that is supported
# make test-soak  runs the same suites for hours: crashes, races, load
# make test-deb   installs, upgrades and removes the Debian packages in a clean root
# make bench      measures what it costs, side by side with the alternatives; QUICK=1 takes less than 3 minutes
# make check      runs what every change must pass: formatting, lints, tests
# make lint       runs Clippy, with every warning an error
# make fmt        formats the code; make fmt-check tells whether it is formatted
# make setup      installs missing prerequisites, as each target does by itself; your PostgreSQL stays as it is
# make clean      removes what was built
# make help       prints this
#
# TEST=name filters the tests by name, SUITE="name ..." selects suites, ONLY=name one scenario of the benchmark.

export PG_CONFIG SUITE

bin := pg_test/bin

.PHONY: help demo stop install uninstall deb test test-all test-soak test-deb bench check lint fmt fmt-check setup clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

# The demo that runs gives its port back first.
demo: stop
	@$(bin)/setup demo
	examples/demo/run

stop:
	examples/demo/stop

install:
	@$(bin)/setup install
	$(bin)/install

uninstall:
	@$(bin)/uninstall

deb: setup
	$(bin)/deb

test:
	@$(bin)/setup tests
	$(if $(VERSIONS),$(bin)/test-versions "$(VERSIONS)",$(bin)/test) $(TEST)

test-all:
	$(MAKE) test VERSIONS="15 16 17 18"

test-soak:
	@$(bin)/setup tests
	SOAK=1 $(bin)/test $(TEST)

test-deb:
	@$(bin)/setup deb
	$(bin)/test-deb

bench:
	@$(bin)/setup bench
	bench/run

check: fmt-check lint test

lint: setup
	$(bin)/lint

fmt:
	cargo fmt --all

fmt-check: setup
	cargo fmt --all --check

setup:
	@$(bin)/setup

clean: stop
	cargo clean
