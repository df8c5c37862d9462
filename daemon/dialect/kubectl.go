package dialect

import (
	"encoding/json"
	"time"

	"bloq-agent/ipc"
)

// kubectl is client-go's exec credential plugin (client.authentication.k8s.io).
// The answer's version must be that of the question, which is in a variable.
var kubectl = Dialect{
	ask: func(call ipc.Call) (Question, *Answer) {
		version := "client.authentication.k8s.io/v1"
		if info := call.Lookup("KUBERNETES_EXEC_INFO"); info != "" {
			var r struct{ APIVersion string }
			if err := json.Unmarshal([]byte(info), &r); err != nil {
				return Question{}, wrong("kubectl: KUBERNETES_EXEC_INFO is not JSON")
			}
			version = r.APIVersion
		}
		switch version {
		case "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1":
			return Question{apiVersion: version}, nil
		}
		return Question{}, wrong("kubectl: apiVersion " + quoted(version) + ": client.authentication.k8s.io/v1 or v1beta1")
	},
	render: func(q Question, t Token) []byte {
		b, _ := json.Marshal(map[string]any{ // nothing here can fail
			"apiVersion": q.apiVersion, "kind": "ExecCredential",
			"status": map[string]string{
				"token":               string(t.Value),
				"expirationTimestamp": t.Expiry.Add(-margin(t)).UTC().Format(time.RFC3339),
			},
		})
		return append(b, '\n')
	},
}

// margin is how much sooner than the truth a caller is told that a token ends,
// where the tool keeps it in memory to the last second and has no margin of its
// own: a minute, or a tenth of what lives shorter than ten.
func margin(t Token) time.Duration {
	return min(time.Minute, t.Expiry.Sub(t.IssuedAt)/10)
}
