# Two commands to begin with: `make demo` shows everything working on this
# machine, `make test` proves it. Both need Go and nothing else.

# What is built says the release that it belongs to, and the commit: twelve digits,
# for git's own choice depends on what else is in the clone. Sources unpacked within
# another repository are not of its commit.
VERSION := $(shell cat VERSION)
COMMIT  := $(if $(wildcard .git),$(shell git rev-parse --short=12 HEAD 2>/dev/null)$(if $(shell git --no-optional-locks status --porcelain 2>/dev/null),-dirty))
BIN     ?= bin
STAMP   = bloq-agent/cmd/internal/version
GOFLAGS_SHIP = -trimpath -buildvcs=false -ldflags '-s -w -X $(STAMP).number=$(VERSION) -X $(STAMP).commit=$(COMMIT)'
PROGRAMS = bloq-agent bloq-token bloq-sandbox
# Names of the helper that tools look for, or call without words.
LINKS = git-credential-bloq docker-credential-bloq cargo-credential-bloq terraform-credentials-bloq bloq-token-pnpm bloq-token-bazel

# The race detector needs cgo, and cgo a C compiler.
RACE := $(shell test "$$(go env CGO_ENABLED)" = 1 && command -v "$$(go env CC)" >/dev/null 2>&1 && echo -race)

# What a test has measured is printed; that it began and passed is not.
FIGURES = awk -f e2e/figures.awk

.PHONY: build cross demo test soak sim mutants mutants-apply lint fuzz install packages e2e clean

build:
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build $(GOFLAGS_SHIP) -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))
	@for name in $(LINKS); do ln -sf bloq-token $(BIN)/$$name; done

# What is not run here is built at least.
CROSS = linux/arm64 darwin/arm64 darwin/amd64
cross:
	@for p in $(CROSS); do CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go build ./... || { echo "$$p does not build"; exit 1; }; done

demo: build
	@$(BIN)/bloq-sandbox demo

# What some tests need besides Go; where it is missing they skip themselves.
PROGRAMS_FOR_TESTS = dbus-daemon gnome-keyring-daemon keepassxc xdotool Xvfb curl man zsh fish git nginx cargo kubectl terraform docker pnpm pnpm-10 crane git-new
# .ci/tools puts there what Debian does not have.
export PATH := $(PATH):$(HOME)/.cache/bloq-tools/bin
MISSING := $(strip $(if $(RACE),,cc) $(foreach p,$(PROGRAMS_FOR_TESTS),$(if $(shell PATH="$(PATH)" command -v $(p)),,$(p))))

test:
	@echo "race detector: $(if $(RACE),on,off)"
ifneq ($(MISSING),)
	@echo "skipped, because they are not installed: $(MISSING)"
	@echo "to run everything: apt-get install -y --no-install-recommends gcc libc6-dev dbus gnome-keyring keepassxc xdotool xvfb curl git nginx-light man-db bash-completion zsh fish; .ci/tools"
	@echo "(cargo, kubectl, terraform and docker's client: from wherever you have such things)"
endif
	@test "$$(id -u)" = 0 || echo "skipped, because it takes root: the tests with a peer of another user, and those with a network of their own"
	@{ go test $(RACE) -count=1 -v -timeout 30m ./...; echo "exit $$?"; } | $(FIGURES)

# The same tests; those that have a long form (months of virtual time, hundreds
# of rounds) take it when BLOQ_SOAK is 1. It prints every test's figures.
soak:
	BLOQ_SOAK=1 go test $(RACE) -count=1 -v -timeout 2h ./...
	$(MAKE) sim SEEDS=20000
	$(MAKE) mutants

# Random histories of the whole daemon, in virtual time; one that breaks a promise is
# printed in its shortest form. SIM_SEED=n runs one again, with its trace.
SEEDS ?= 1000
sim:
ifdef SIM_SEED
	SIM_SEED=$(SIM_SEED) go test -count=1 -v -run '^TestReplay$$' ./sim
else
	SIM_SEEDS=$(SEEDS) SIM_FOR=$(SIM_FOR) CGO_ENABLED=0 go test -count=1 -v -timeout 4h -run '^(TestSeeds|TestNamedHistories)$$' ./sim
endif

# Each patch in e2e/mutants takes out the code that keeps one promise; the tests
# that it names must fail then. One alone: make mutants ONLY=name (or a pattern).
ONLY ?= *
mutants:
	@go run ./e2e/mutants -only '$(ONLY)'
# That each applies and compiles, which is quick.
mutants-apply:
	@go run ./e2e/mutants -apply

# Tools are pinned in a module of their own, so that ours stays small.
lint: cross
	go vet ./...
	@test -z "$$(go tool -modfile=tools/go.mod gofumpt -l .)" || { go tool -modfile=tools/go.mod gofumpt -d .; exit 1; }
	go tool -modfile=tools/go.mod staticcheck ./...

# A count and not a time: at the end of a time the fuzzer sometimes reports its
# own deadline as a failure of the target. `make fuzz FUZZTIME=5m` for longer.
FUZZTIME ?= 200000x
fuzz:
	@go list -f '{{.Dir}}' ./... | while read -r dir; do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go 2>/dev/null | cut -c6-); do \
			echo "$$dir $$target"; \
			( cd $$dir && go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) . ) || exit 1; \
		done; \
	done

# make install DESTDIR=/tmp/root PREFIX=/usr
PREFIX  ?= /usr/local
DESTDIR ?=
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
UNITS   = $(PREFIX)/lib/systemd
SHARE   = $(DESTDIR)$(PREFIX)/share

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(UNITS)/user $(DESTDIR)$(UNITS)/system \
		$(SHARE)/man/man1 $(SHARE)/man/man5 $(SHARE)/bash-completion/completions $(DESTDIR)$(ZSHDIR) \
		$(SHARE)/fish/vendor_completions.d $(SHARE)/doc/bloq-agent/examples
	install -m 755 $(addprefix $(BIN)/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin
	for h in $(LINKS); do ln -sf bloq-token $(DESTDIR)$(PREFIX)/bin/$$h || exit 1; done
	for f in user/bloq-agent.socket user/bloq-agent.service system/bloq-agent@.socket system/bloq-agent@.service; do \
		sed 's,/usr/\(bin\|share\)/,$(PREFIX)/\1/,' systemd/$$f >$(DESTDIR)$(UNITS)/$$f && chmod 644 $(DESTDIR)$(UNITS)/$$f || exit 1; done
	for f in $(wildcard packaging/*.catalog); do install -D -m 644 -t $(DESTDIR)$(UNITS)/catalog $$f || exit 1; done
	for n in 1 5; do for f in packaging/man/*.$$n; do \
		gzip -9nc $$f >$(SHARE)/man/man$$n/$${f##*/}.gz && chmod 644 $(SHARE)/man/man$$n/$${f##*/}.gz || exit 1; done; done
	for h in $(LINKS); do ln -sf bloq-token.1.gz $(SHARE)/man/man1/$$h.1.gz || exit 1; done
	umask 022 && $(BIN)/bloq-agent completion bash >$(SHARE)/bash-completion/completions/bloq-agent
	umask 022 && $(BIN)/bloq-agent completion zsh >$(DESTDIR)$(ZSHDIR)/_bloq-agent
	umask 022 && $(BIN)/bloq-agent completion fish >$(SHARE)/fish/vendor_completions.d/bloq-agent.fish
	install -m 644 packaging/config.toml packaging/credentials.conf $(SHARE)/doc/bloq-agent/examples
	gzip -9nc CHANGELOG.md >$(SHARE)/doc/bloq-agent/changelog.gz && chmod 644 $(SHARE)/doc/bloq-agent/changelog.gz

# A .deb and an .rpm in dist. The same commit makes the same bytes: what is in
# them is as old as the commit. A clean commit with the tag of VERSION is that
# release. Any other is a snapshot, with its date: of what comes before the release,
# 0.1.0~gitDATE.COMMIT, which dpkg and rpm both sort below 0.1.0; or of what comes
# after it, while VERSION is not raised, 0.1.0+gitDATE.COMMIT, which both sort above.
DIST ?= dist
RELEASE = $(if $(findstring -dirty,$(COMMIT)),,$(filter v$(VERSION),$(shell git tag --points-at HEAD 2>/dev/null)))
SIDE    = $(if $(shell git merge-base --is-ancestor v$(VERSION) HEAD 2>/dev/null && echo after),+,~)
SNAPSHOT = $(SIDE)git$(shell date -u -d @$(SOURCE_DATE_EPOCH) +%Y%m%d%H%M%S).$(or $(subst -,.,$(COMMIT)),unknown)
packages: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
packages: export PACKAGE_VERSION ?= $(VERSION)$(if $(RELEASE),,$(SNAPSHOT))
packages: export PACKAGE_ARCH ?= $(shell go env GOARCH)
packages:
	./packaging/build $(DIST)

# The package, installed on a machine with a systemd of its own, in namespaces.
E2E_PROGRAMS = systemd-run dbus-daemon unshare nsenter setpriv lintian rpmlint rpm gnome-keyring-daemon
E2E_MISSING := $(strip $(foreach p,$(E2E_PROGRAMS),$(if $(shell command -v $(p)),,$(p))) \
	$(if $(wildcard /lib/*/security/pam_systemd.so),,pam_systemd) $(if $(wildcard /usr/lib/systemd/user/dbus.socket),,dbus-user-session))
e2e:
	@test "$$(id -u)" = 0 || { echo "it takes root to boot a systemd: sudo make e2e" >&2; exit 1; }
ifneq ($(E2E_MISSING),)
	@echo "not installed: $(E2E_MISSING)" >&2
	@echo "apt-get install -y --no-install-recommends systemd dbus-user-session libpam-systemd gnome-keyring lintian rpm rpmlint" >&2
	@exit 1
endif
	@{ BLOQ_E2E=1 go test -count=1 -parallel 3 -timeout 8m -v ./e2e/systemd; echo "exit $$?"; } | $(FIGURES)

clean:
	rm -rf $(BIN) $(DIST)
