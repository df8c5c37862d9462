package dialect

import (
	"encoding/json"
	"strings"

	"bloq-agent/ipc"
)

// cargo is cargo's credential provider protocol, version 1 (The Cargo Book,
// "Credential Provider Protocol"): one line of JSON for each request. The helper
// has said hello before the first.
var cargo = Dialect{
	ask: func(call ipc.Call) (Question, *Answer) {
		if len(call.Args) != 1 || call.Args[0] != "--cargo-plugin" {
			return Question{}, wrong("cargo: it is called by cargo, with --cargo-plugin")
		}
		var r struct {
			V        int
			Kind     string
			Registry struct {
				IndexURL string `json:"index-url"`
			}
			Args []string
		}
		if err := json.Unmarshal(call.Stdin, &r); err != nil || r.V != 1 {
			return Question{}, cargoOther("the request is not of version 1 of cargo's protocol")
		}
		if r.Kind != "get" {
			return Question{}, cargoError(`{"Err":{"kind":"operation-not-supported"}}`)
		}
		profile, ok := profileFlag(r.Args)
		if !ok {
			return Question{}, cargoOther("the arguments in cargo's configuration may be --profile NAME, and nothing else")
		}
		url := r.Registry.IndexURL
		if kind, rest, found := strings.Cut(url, "+"); found && (kind == "sparse" || kind == "registry") {
			url = rest
		}
		return Question{Target: ParseTarget(url), Profile: profile}, nil
	},
	render: func(_ Question, t Token) []byte {
		// Cargo sends the token as the whole value of Authorization.
		b, _ := json.Marshal(map[string]any{"Ok": map[string]any{ // nothing here can fail
			"kind": "get", "token": "Bearer " + string(t.Value), "cache": "expires",
			"expiration": t.Expiry.Unix(), "operation_independent": true,
		}})
		return append(b, '\n')
	},
	fail:    func(_ Question, p *ipc.Problem) Answer { return *cargoOther(sentence(p)) },
	nothing: func(Question) Answer { return *cargoError(`{"Err":{"kind":"url-not-supported"}}`) },
}

func cargoError(line string) *Answer { return &Answer{Stdout: []byte(line + "\n")} }

// cargoOther is shown by cargo as it is.
func cargoOther(message string) *Answer {
	b, _ := json.Marshal(map[string]any{"Err": map[string]any{"kind": "other", "message": message, "caused-by": []string{}}})
	return cargoError(string(b))
}

// profileFlag reads the arguments that a person has put into cargo's
// configuration: cargo passes them in the request, not to the program.
func profileFlag(args []string) (string, bool) {
	name, ok := "", true
	switch {
	case len(args) == 0:
		return "", true
	case len(args) == 2 && (args[0] == "--profile" || args[0] == "-p"):
		name = args[1]
	case len(args) == 1:
		if name, ok = strings.CutPrefix(args[0], "--profile="); !ok {
			name, ok = strings.CutPrefix(args[0], "-p=")
		}
	default:
		ok = false
	}
	return name, ok && ipc.ValidProfile(name)
}
