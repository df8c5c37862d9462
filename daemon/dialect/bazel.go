package dialect

import (
	"encoding/json"
	"time"

	"bloq-agent/ipc"
)

// bazel is the credential helper protocol of Bazel and others (EngFlow's
// credential-helper-spec). It has headers and an expiry, which makes it the
// best of all for programs of one's own.
var bazel = Dialect{
	ask: func(call ipc.Call) (Question, *Answer) {
		if len(call.Args) != 1 || call.Args[0] != "get" {
			return Question{}, wrong("bazel: get is wanted")
		}
		var r struct{ URI string }
		if err := json.Unmarshal(call.Stdin, &r); err != nil || r.URI == "" {
			return Question{}, wrong(`bazel: {"uri":"https://…"} is wanted on stdin`)
		}
		return Question{Target: ParseTarget(r.URI)}, nil
	},
	render: func(_ Question, t Token) []byte {
		b, _ := json.Marshal(map[string]any{ // nothing here can fail
			"headers": map[string][]string{"Authorization": {"Bearer " + string(t.Value)}},
			"expires": t.Expiry.UTC().Format(time.RFC3339),
		})
		return append(b, '\n')
	},
	// The specification would rather have an error, but a helper without a scope
	// is asked for every download there is, and an error ends the build.
	nothing: func(Question) Answer { return Answer{Stdout: []byte(`{"headers":{}}` + "\n")} },
}
