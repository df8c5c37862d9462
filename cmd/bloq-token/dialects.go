package main

import "bloq-agent/ipc"

// When a dialect reads stdin. A helper that waits for an end that does not come
// hangs the tool that called it.
type stdin uint8

const (
	never stdin = iota
	toEOF
	toEOFWithArgs // only if there are arguments
	lines         // one question a line, each answered before the next is read
)

// A dialect says how a form is to be called. The daemon knows the rest.
type dialect struct {
	maxArgs int
	stdin   stdin
	env     string // the variable that it reads, or ""
	hello   string // what it prints before anything is read
	tool    bool   // its caller is another program, and gets access tokens only

	// nothing is its way to say that it has nothing, for when the daemon does not
	// answer. Those that sit in a tool's global configuration have one: a stopped
	// agent must not break a push to some other host. The others exit 4 or 5.
	nothing func(args []string) answer
}

type answer struct {
	stdout string
	exit   int
}

func silence([]string) answer { return answer{} }

var dialects = map[string]dialect{
	"token":     {},
	"header":    {},
	"bearer":    {},
	"json":      {},
	"curl":      {},
	"env":       {},
	"kubectl":   {tool: true, env: "KUBERNETES_EXEC_INFO"},
	"terraform": {tool: true, maxArgs: 2},
	"git":       {tool: true, maxArgs: 1, stdin: toEOF, nothing: silence},
	"goauth":    {tool: true, maxArgs: 1, stdin: toEOFWithArgs, nothing: silence},
	"cargo": {tool: true, maxArgs: 1, stdin: lines, hello: `{"v":[1]}` + "\n", nothing: func([]string) answer {
		return answer{stdout: `{"Err":{"kind":"url-not-supported"}}` + "\n"}
	}},
	"bazel": {tool: true, maxArgs: 1, stdin: toEOF, nothing: func([]string) answer {
		return answer{stdout: `{"headers":{}}` + "\n"}
	}},
	"docker": {tool: true, maxArgs: 1, stdin: toEOF, nothing: func(args []string) answer {
		switch {
		case len(args) == 1 && args[0] == "list":
			return answer{stdout: "{}\n"}
		case len(args) == 1 && args[0] == "erase":
			return answer{}
		}
		return answer{stdout: "credentials not found in native keychain\n", exit: 1}
	}},
}

// names are the programs that tools look for by name, or call without
// arguments: symbolic links to this one.
var names = map[string]string{
	"git-credential-bloq":        "git",
	"docker-credential-bloq":     "docker",
	"terraform-credentials-bloq": "terraform",
	"cargo-credential-bloq":      "cargo",
	"bloq-token-bazel":           "bazel",
	"bloq-token-pnpm":            "bearer",
}

// dialectOf is the dialect that the program was called as, or "".
func dialectOf(argv0 string) string {
	for i := len(argv0) - 1; i >= 0; i-- {
		if argv0[i] == '/' {
			argv0 = argv0[i+1:]
			break
		}
	}
	return names[argv0]
}

// maxVariable bounds a variable that goes into the request. kubectl's can hold
// a bundle of certificates.
const maxVariable = 64 << 10

// maxStdin leaves room for the rest of a request.
const maxStdin = ipc.MaxBody - maxVariable
