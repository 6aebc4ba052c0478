# make demo      see it work: a throw-away server with users who come and go
# make stop      stop and remove the demo's server
# make test      every test, on throw-away servers
# make test-soak the same suites for hours: crashes, races, load
# make bench     what it costs, side by side with what one would pick instead; QUICK=1 in under 3 minutes
# make install   into the PostgreSQL that PG_CONFIG names (default: the one on the PATH)
# make check     what a change must pass: formatting, lints, tests
# make clean     remove what was built
#
# Each installs what it needs and this machine lacks. TEST=name runs the tests so named, SUITE=name one suite,
# ONLY=name one chapter of the benchmark.

export PG_CONFIG SUITE

bin := pg_test/bin

.PHONY: demo stop test test-soak bench install setup check fmt fmt-check lint clean

demo: setup
	examples/demo/run

stop:
	examples/demo/stop

test: setup
	$(bin)/setup tests
	$(bin)/test $(TEST)

test-soak: setup
	$(bin)/setup tests
	SOAK=1 $(bin)/test $(TEST)

bench: setup
	$(bin)/setup bench
	bench/run

install: setup
	$(bin)/install

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
