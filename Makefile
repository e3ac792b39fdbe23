# ragd. `make help` lists the targets.
# Variables: CC=gcc|clang  BUILD=build  SAN=address,undefined  COV=1  PREFIX=/usr/local  DESTDIR=  FUZZ_SECONDS=300

CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
BUILD   ?= build
PREFIX  ?= /usr/local
PYTHON  ?= /usr/bin/python3
VERSION := 0.1.0
COMMIT  ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)

PKGS    := libevent_core libpq jansson yaml-0.1 sqlite3 libcrypto gumbo libcmark libutf8proc libcurl expat minizip libseccomp libssl hiredis
CPPFLAGS += -I. -I$(BUILD)/gen -D_GNU_SOURCE -D_FORTIFY_SOURCE=2
CFLAGS  ?= -O2 -g
CFLAGS  += -std=gnu17 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Werror \
           -fstack-protector-strong -fPIE -fno-omit-frame-pointer -pthread
LDFLAGS += -pie -pthread -Wl,-z,relro,-z,now
CFLAGS  += $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDLIBS  += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lstemmer -lm
ifdef SAN
CFLAGS  += -fsanitize=$(SAN) -fno-sanitize-recover=all
LDFLAGS += -fsanitize=$(SAN)
CPPFLAGS := $(filter-out -D_FORTIFY_SOURCE=2,$(CPPFLAGS))
endif
ifdef COV
CFLAGS  += --coverage -O1
LDFLAGS += --coverage
endif

SRCS := $(sort $(wildcard common/*.c config/*.c master/*.c worker/*.c worker/*/*.c))
GEN  := $(BUILD)/gen/migrations.c $(BUILD)/gen/samples.c $(BUILD)/gen/version.h
OBJS := $(SRCS:%.c=$(BUILD)/%.o) $(BUILD)/gen/migrations.o $(BUILD)/gen/samples.o
MAIN := $(BUILD)/master/main.o
LIB  := $(BUILD)/libragd.a
UNIT_SRCS := $(sort $(wildcard tests/unit/test_*.c tests/contract/test_*.c))
UNIT := $(UNIT_SRCS:%.c=$(BUILD)/%)
TOOLS := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/tools/*.c)))
FUZZ := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

.PHONY: all help
all: $(BUILD)/ragd ## Build build/ragd

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BUILD)/ragd: $(MAIN) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(LIB): $(filter-out $(MAIN),$(OBJS))
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/%.o: %.c | $(BUILD)/gen/version.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# _longjmp to another stack aborts under _FORTIFY_SOURCE.
$(BUILD)/worker/fiber/fiber.o: CPPFLAGS := $(filter-out -D_FORTIFY_SOURCE=2,$(CPPFLAGS)) -U_FORTIFY_SOURCE

$(BUILD)/gen/%.o: $(BUILD)/gen/%.c
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/gen/migrations.c: worker/store/embed_migrations.sh $(wildcard worker/store/migrations/*/*.sql)
	@mkdir -p $(@D)
	sh worker/store/embed_migrations.sh >$@

$(BUILD)/gen/samples.c: worker/cli/embed_samples.sh $(wildcard worker/cli/samples/*)
	@mkdir -p $(@D)
	sh worker/cli/embed_samples.sh >$@

# Looked at each time, written when the commit has changed.
.PHONY: force
$(BUILD)/gen/version.h: force
	@mkdir -p $(@D)
	@printf '#define RAGD_VERSION "%s"\n#define RAGD_COMMIT "%s"\n' '$(VERSION)' '$(COMMIT)' >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(BUILD)/tests/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(LIB) $(LDLIBS) -lcmocka

# Programs that tests run; they stand alone.
$(BUILD)/tests/tools/%: tests/tools/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

# Programs that benchmarks run, with all of ragd in them.
$(BUILD)/tests/bench/%: tests/bench/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LDLIBS)

# libFuzzer's main(); SAN=fuzzer-no-link,... instruments the rest.
$(BUILD)/tests/fuzz/%: tests/fuzz/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -Wno-missing-prototypes -MMD -MP $(LDFLAGS) -fsanitize=fuzzer -o $@ $< $(LIB) $(LDLIBS)

-include $(OBJS:.o=.d)
-include $(UNIT:=.d) $(FUZZ:=.d)

# ---- what people and CI call ----
JOBS      := -j$(shell nproc)
ASAN      := $(JOBS) SAN=address,undefined BUILD=build-asan
FUZZING   := $(JOBS) CC=clang-14 SAN=fuzzer-no-link,address,undefined BUILD=build-fuzz
SUITES    := lint unit contract api process container fuzz@build-fuzz \
             unit@build-asan contract@build-asan api@build-asan process@build-asan valgrind
FUZZ_SECONDS ?= 300
RUN       := CC='$(CC)' CFLAGS='$(CPPFLAGS) $(CFLAGS)' tests/run.py

.PHONY: lib unit-programs fuzz-programs run test suites check asan cov fuzz bench bench-requests bench-vectors bench-search bench-ingest bench-retrieval soak chaos chaos-retrieval process-table fmt lint tidy generated install clean
lib: $(LIB)
unit-programs: $(UNIT) $(TOOLS)
fuzz-programs: $(FUZZ)

run: ## Install what is missing, build, serve on 127.0.0.1:8000 (data in data/, settings from .env and ragd.yaml)
	@deploy/install-packages.sh build run
	@$(MAKE) $(JOBS) all
	@mkdir -p data
	exec $(BUILD)/ragd serve $(if $(wildcard ragd.yaml),-c ragd.yaml)

test: ## Install what is missing, build and run all tests: about half an hour on two cores
	@deploy/install-packages.sh build run test container
	@PYTHON='$(PYTHON)' deploy/install-pypi.sh
	@$(MAKE) $(JOBS) all unit-programs
	@$(MAKE) $(ASAN) all unit-programs
	@$(MAKE) $(FUZZING) fuzz-programs
	@$(MAKE) suites

# A make of its own: the flags of libraries that were installed a moment ago are known to it.
suites:
	@$(RUN) --build $(BUILD) $(SUITES)

check: ## The quick part of the tests: lint, unit, contract, api
	@$(MAKE) $(JOBS) all unit-programs
	@$(RUN) --build $(BUILD) lint unit contract api

asan: ## Unit, contract, api and process tests under ASan and UBSan
	@$(MAKE) $(ASAN) all unit-programs
	@$(RUN) --build build-asan unit contract api process

cov: ## Coverage of unit, contract, api and process tests: build-cov/report/index.html
	@$(MAKE) $(JOBS) COV=1 BUILD=build-cov all unit-programs
	@$(RUN) --build build-cov unit contract api process
	@mkdir -p build-cov/report
	gcovr -r . --object-directory build-cov -e tests/ -e build-cov/ --html-details build-cov/report/index.html --print-summary

fuzz: ## Fuzz every target for FUZZ_SECONDS each
	@$(MAKE) $(FUZZING) fuzz-programs
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(RUN) --build build-fuzz fuzz

PARTS ?= requests vectors search ingest
bench: ## Side by side with what others would deploy; PARTS='search ingest' for some of it: tests/bench/README.md
	@rc=0; for part in $(PARTS); do echo; echo "== $$part"; $(MAKE) bench-$$part || rc=1; done; exit $$rc

bench-requests: ## Lookups, pages, creates and more beside FastAPI, nginx and pgbench
	@deploy/install-packages.sh build run bench
	@$(MAKE) $(JOBS) all
	@$(PYTHON) tests/bench/bench.py --ragd $(BUILD)/ragd $(BENCH)

bench-vectors: ## Vector search beside Qdrant's engine: in the process, and over HTTP beside FastAPI with it
	@deploy/install-packages.sh build run bench
	@PYTHON='$(PYTHON)' deploy/install-pypi.sh bench
	@$(MAKE) $(JOBS) all $(BUILD)/tests/bench/vectors
	@build/venv-bench/bin/python3 tests/bench/vectors.py --ragd $(BUILD)/ragd --tool $(BUILD)/tests/bench/vectors $(BENCH)

bench-search: ## Lexical search over 100,000 chunks beside FTS5 and bm25s
	@deploy/install-packages.sh build run bench
	@PYTHON='$(PYTHON)' deploy/install-pypi.sh bench
	@$(MAKE) $(JOBS) all
	@$(PYTHON) tests/bench/search.py --ragd $(BUILD)/ragd $(BENCH)

bench-ingest: ## Documents a second, from upload to searchable, beside FastAPI with BackgroundTasks
	@deploy/install-packages.sh build run bench
	@$(MAKE) $(JOBS) all
	@$(PYTHON) tests/bench/ingest.py --ragd $(BUILD)/ragd $(BENCH)

bench-retrieval: ## nDCG@10 by words, vectors and both beside a reference, on two sets from Debian packages: tests/bench/retrieval.md
	@deploy/install-packages.sh build run
	@PYTHON='$(PYTHON)' deploy/install-pypi.sh bench
	@$(MAKE) $(JOBS) all
	@$(PYTHON) tests/bench/retrieval.py --ragd $(BUILD)/ragd $(BENCH)

soak: all ## 1,000 reloads under load: no request fails, and the master does not grow
	RAGD_BIN=$(abspath $(BUILD))/ragd $(PYTHON) tests/process/soak.py $(SOAK)

chaos: all ## 10 minutes in which workers are killed and the master is asked for everything, under load
	RAGD_BIN=$(abspath $(BUILD))/ragd $(PYTHON) tests/process/chaos.py $(CHAOS)

chaos-retrieval: all ## 5 minutes in which workers and backends are killed while documents are ingested and searched
	RAGD_BIN=$(abspath $(BUILD))/ragd $(PYTHON) tests/process/retrieval_chaos.py $(CHAOS)

process-table: ## Write tests/process/peer.md, ragd beside gunicorn in what goes wrong in operation, anew
	@deploy/install-packages.sh build run test
	@$(MAKE) $(JOBS) all
	@RAGD_WRITE_TABLE=1 RAGD_BIN=$(abspath $(BUILD))/ragd $(PYTHON) -m pytest -q -p no:cacheprovider tests/process/test_peer.py

lint: ## Layers, headers, format, words, sizes, generated files, `suspends`
	@$(RUN) --build $(BUILD) lint

fmt: ## Format all C files
	clang-format-14 -i $$(git ls-files '*.c' '*.h')

tidy: $(BUILD)/gen/version.h ## Static analysis by clang-tidy
	@printf '%s\n' $(SRCS) | xargs -P $$(nproc) -n 4 sh -c 'clang-tidy-14 --quiet "$$@" -- $(CPPFLAGS) -std=gnu17' tidy

generated: all ## Refresh the files that the program prints itself
	$(BUILD)/ragd dump --example >config/ragd.example.yaml
	$(BUILD)/ragd dump --reference >$(BUILD)/reference.md
	sed -i -e '/^<!-- generated: ragd dump --reference -->$$/,/^<!-- end -->$$/{//!d}' \
	    -e '/^<!-- generated: ragd dump --reference -->$$/r $(BUILD)/reference.md' README.md

install: all ## Into DESTDIR and PREFIX
	install -D -m 755 $(BUILD)/ragd $(DESTDIR)$(PREFIX)/bin/ragd
	install -D -m 644 config/ragd.example.yaml $(DESTDIR)$(PREFIX)/share/ragd/ragd.example.yaml
	for unit in ragd.service ragd.socket; do sed 's|/usr/bin/ragd|$(PREFIX)/bin/ragd|' deploy/$$unit | \
	    install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit; done
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/ragd/LICENSE
	for page in $(wildcard deploy/man/*.1); do install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man1/$${page##*/}; done

clean: ## Remove build directories
	rm -rf build build-*
