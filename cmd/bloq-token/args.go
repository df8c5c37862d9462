package main

import (
	"errors"

	"bloq-agent/ipc"
	"bloq-agent/ipc/client"
)

const usage = `usage: bloq-token [flags] [FORM [WORDS…]]
       bloq-token version

Prints the current Bloq access token. FORM is one of:
  token     the token itself (the default)
  header    Authorization: Bearer TOKEN
  bearer    Bearer TOKEN                       pnpm, cargo:token-from-stdout
  json      token, expiry and more, as JSON
  curl      a line for curl -K -
  env       a line for eval "$(bloq-token env)"
or what a tool calls as its credential helper, with the tool's own words:
  git       get, store, erase                  also as git-credential-bloq
  docker    get, list, store, erase            also as docker-credential-bloq
  kubectl   exec credential plugin
  goauth    [URL]: $GOAUTH
  cargo     --cargo-plugin                     also as cargo-credential-bloq
  terraform get HOST                           also as terraform-credentials-bloq
  bazel     get                                also as bloq-token-bazel

flags, before the form:
  -p, --profile NAME   which login (default: $BLOQ_PROFILE, else the one that has
                       the host, else the only one)
  --min-ttl DURATION   how long the token should live still (default: 5m)
  --timeout DURATION   how long to wait for an answer (default: 10s)
  --socket PATH        the daemon's socket (default: $BLOQ_AGENT_SOCK, else in $XDG_RUNTIME_DIR)
  --account            the Account Access Token, while a login's 12 hours last
  --version, --help

DURATION is 90s, 5m, 1h30m, or bare seconds.
exit: 0 printed, 1 unexpected, 2 usage, 3 login needed, 4 no daemon, 5 no valid token now

example: bloq-token header | curl -H @- https://nodes.bloq.cloud/nodes/v1/status
`

type options struct {
	profile, socket, dialect string
	form                     dialect
	args                     []string
	query                    string
	request                  client.Request
	account, help, version   bool
}

// parse reads our flags, which come before the dialect; what follows it is
// the tool's own and goes to the daemon unread. A program that is called by a
// dialect's name has its flags first, and then the tool's words: git and
// terraform put theirs after what a person has configured.
func parse(argv []string, getenv func(string) string) (options, error) {
	o := options{profile: getenv("BLOQ_PROFILE"), dialect: dialectOf(argv[0])}
	args := argv[1:]
	for len(args) > 0 {
		name, value, given := cutFlag(args[0])
		if name == "" || o.dialect != "" && !known(name) {
			break
		}
		args = args[1:]
		switch name {
		case "--help", "-h":
			o.help = true
			return o, nil
		case "--version":
			o.version = true
			return o, nil
		case "--account":
			o.account = true
			if given {
				return o, errors.New(name + " takes no value")
			}
			continue
		}
		if !given && takesValue(name) {
			if len(args) == 0 {
				return o, errors.New(name + " needs a value")
			}
			value, args = args[0], args[1:]
		}
		if err := o.set(name, value); err != nil {
			return o, err
		}
	}
	switch {
	case o.dialect != "":
	case len(args) == 1 && args[0] == "version":
		o.version = true
		return o, nil
	case len(args) > 0:
		o.dialect, args = args[0], args[1:]
	default:
		o.dialect = "token"
	}
	o.args = args
	if err := o.check(); err != nil {
		return o, err
	}
	o.finish()
	return o, nil
}

// cutFlag splits --flag=value; name is empty for what is no flag.
func cutFlag(s string) (name, value string, given bool) {
	if len(s) < 2 || s[0] != '-' {
		return "", "", false
	}
	for i := range len(s) {
		if s[i] == '=' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func takesValue(name string) bool {
	switch name {
	case "--profile", "-p", "--socket", "--min-ttl", "--timeout":
		return true
	}
	return false
}

// known tells our flags from a tool's.
func known(name string) bool {
	switch name {
	case "--account", "--help", "-h", "--version":
		return true
	}
	return takesValue(name)
}

func (o *options) set(name, value string) error {
	switch name {
	case "--profile", "-p":
		o.profile = value
	case "--socket":
		o.socket = value
	case "--min-ttl":
		d, err := ipc.ParseDuration(value)
		if err != nil {
			return errors.New("--min-ttl " + quote(value) + ": " + err.Error())
		}
		o.query = "&min_ttl=" + ipc.FormatDuration(d)
	case "--timeout":
		d, err := ipc.ParseDuration(value)
		if err == nil && (d <= 0 || d > ipc.MaxTimeout) {
			err = errors.New("must be more than 0 and at most 1h")
		}
		if err != nil {
			return errors.New("--timeout " + quote(value) + ": " + err.Error())
		}
		o.request.Timeout = d
	default:
		return errors.New("unknown flag " + quote(name))
	}
	return nil
}

// A profileError is a name that no profile can have. It may stand in a variable
// that a tool inherits, where it must not break what is for others.
type profileError string

func (e profileError) Error() string {
	return "no profile can be called " + quote(string(e)) + " (a-z, 0-9, _ and -, at most 32)"
}

func (o *options) check() error {
	var ok bool
	if o.form, ok = dialects[o.dialect]; !ok {
		return errors.New("unknown form " + quote(o.dialect))
	}
	if o.profile != "" && !ipc.ValidProfile(o.profile) {
		return profileError(o.profile)
	}
	if o.account && o.form.tool {
		return errors.New("--account is for people: " + o.dialect + " gets access tokens")
	}
	if len(o.args) > o.form.maxArgs {
		return errors.New(o.dialect + " takes no argument " + quote(o.args[o.form.maxArgs]) + " (flags come before it)")
	}
	return nil
}

// finish composes the request. Nothing in the query needs escaping: a valid
// profile and a formatted duration hold only letters, digits, '_' and '-'.
func (o *options) finish() {
	if o.profile != "" {
		o.query += "&profile=" + o.profile
	}
	if o.account {
		o.query += "&kind=account"
	}
	o.request.Method = "POST"
	o.request.Target = ipc.RouteDialect + o.dialect
	if o.query != "" {
		o.request.Target += "?" + o.query[1:]
	}
}

// quote shows the beginning of what somebody else has typed.
func quote(s string) string { return `"` + ipc.Visible(s[:min(len(s), 64)]) + `"` }
