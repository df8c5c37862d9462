package dialect

import (
	"encoding/json"

	"bloq-agent/ipc"
)

// terraform is Terraform's and OpenTofu's credentials helper protocol
// (Terraform's "Credentials Helpers"). HOST is a host name in ASCII, with a port
// unless that is https's.
var terraform = Dialect{
	ask: func(call ipc.Call) (Question, *Answer) {
		if len(call.Args) != 2 {
			return Question{}, wrong("terraform: get HOST is wanted")
		}
		switch call.Args[0] {
		case "get":
			return Question{Target: target("https", call.Args[1])}, nil
		case "store", "forget":
			return Question{}, wrong("terraform: " + call.Args[0] + " is not for this helper: " +
				"bloq-agent login and bloq-agent logout do that")
		}
		return Question{}, wrong("terraform: unknown verb " + quoted(call.Args[0]))
	},
	render: func(_ Question, t Token) []byte {
		b, _ := json.Marshal(map[string]string{"token": string(t.Value)}) // a string
		return append(b, '\n')
	},
	nothing: func(Question) Answer { return Answer{Stdout: []byte("{}\n")} },
}
