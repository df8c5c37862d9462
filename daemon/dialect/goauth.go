package dialect

import (
	"bytes"
	"strings"

	"bloq-agent/ipc"
)

// goauth is a command in $GOAUTH (`go help goauth`, Go 1.24). Go runs it once
// without a URL before the first download, and again with the URL of each
// answer of 4xx.
var goauth = Dialect{
	ask: func(call ipc.Call) (Question, *Answer) {
		switch len(call.Args) {
		case 0:
			return Question{AllHosts: true}, nil
		case 1:
			return Question{Target: ParseTarget(call.Args[0])}, nil
		}
		return Question{}, wrong("goauth: one URL, or none")
	},
	render: func(q Question, t Token) []byte {
		urls := q.Hosts.urls()
		if q.Target != nil {
			urls = []string{q.Target.origin()}
		}
		if len(urls) == 0 {
			return nil
		}
		var b bytes.Buffer
		b.WriteString(strings.Join(urls, "\n") + "\n\nAuthorization: Bearer ")
		b.Write(t.Value)
		b.WriteString("\n\n") // the last empty line is not optional
		return b.Bytes()
	},
	nothing: func(Question) Answer { return Answer{} },
}
