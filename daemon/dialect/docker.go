package dialect

import (
	"encoding/json"
	"strings"

	"bloq-agent/ipc"
)

// docker is the protocol of docker-credential-helpers, which podman, skopeo,
// crane and helm speak too. Clients tell outcomes apart by these very words on
// stdout.
var docker = Dialect{
	ask: func(call ipc.Call) (Question, *Answer) {
		if len(call.Args) != 1 {
			return Question{}, wrong("docker: one of get, store, erase, list is wanted")
		}
		switch call.Args[0] {
		case "get":
			server := strings.TrimRight(string(call.Stdin), "\r\n")
			if server == "" {
				return Question{}, dockerError("no credentials server URL")
			}
			url := server
			if !strings.Contains(server, "://") {
				url = "https://" + server // a registry is named by its host alone
			}
			return Question{Target: ParseTarget(url), server: server}, nil
		case "store":
			// A silent success would let `docker login` believe that it was kept.
			return Question{}, dockerError("bloq-token keeps no passwords; log in with: bloq-agent login")
		case "erase":
			return Question{}, &Answer{}
		case "list":
			return Question{}, &Answer{Stdout: []byte("{}\n")}
		}
		return Question{}, dockerError("unknown verb " + quoted(call.Args[0]))
	},
	render: func(q Question, t Token) []byte {
		out := struct{ ServerURL, Username, Secret string }{q.server, q.Username, string(t.Value)}
		b, _ := json.Marshal(out) // three strings
		return append(b, '\n')
	},
	fail: func(_ Question, p *ipc.Problem) Answer {
		a := failed(p)
		return Answer{Stdout: []byte(sentence(p) + "\n"), Stderr: a.Stderr, Exit: 1}
	},
	nothing: func(Question) Answer { return *dockerError("credentials not found in native keychain") },
}

func dockerError(text string) *Answer { return &Answer{Stdout: []byte(text + "\n"), Exit: 1} }
