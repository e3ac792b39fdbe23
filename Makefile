# ragd. `make help` lists the targets.
# Variables: CC=gcc|clang  BUILD=build  SAN=address,undefined  COV=1  PREFIX=/usr/local  DESTDIR=

CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
BUILD   ?= build
PREFIX  ?= /usr/local
PYTHON  ?= /usr/bin/python3
VERSION := 0.1.0
COMMIT  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

PKGS    := libevent_core libpq jansson yaml-0.1 sqlite3 libcrypto gumbo libcmark libutf8proc
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
GEN  := $(BUILD)/gen/migrations.c $(BUILD)/gen/version.h
OBJS := $(SRCS:%.c=$(BUILD)/%.o) $(BUILD)/gen/migrations.o
MAIN := $(BUILD)/master/main.o
LIB  := $(BUILD)/libragd.a
UNIT_SRCS := $(sort $(wildcard tests/unit/test_*.c tests/contract/test_*.c))
UNIT := $(UNIT_SRCS:%.c=$(BUILD)/%)

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

$(BUILD)/gen/version.h: Makefile
	@mkdir -p $(@D)
	@printf '#define RAGD_VERSION "%s"\n#define RAGD_COMMIT "%s"\n' '$(VERSION)' '$(COMMIT)' >$@

$(BUILD)/tests/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(LIB) $(LDLIBS) -lcmocka

-include $(OBJS:.o=.d)
-include $(UNIT:=.d)

.PHONY: lib unit clean fmt
lib: $(LIB)
unit: $(UNIT) ## Build and run the unit and contract tests
	@set -e; for t in $(UNIT); do echo "== $$t"; $$t; done

fmt: ## Format all C files
	clang-format-14 -i $$(git ls-files '*.c' '*.h')

clean: ## Remove build directories
	rm -rf build build-*
