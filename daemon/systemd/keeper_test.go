package systemd

import (
	"bytes"
	"testing"
)

// What a damaged file holds is never believed, nor quoted.
func FuzzParseKeptTakesWhatItWrote(f *testing.F) {
	f.Add([]byte(`{"version":1,"serial":3,"profiles":[{"id":"a"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"serial":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := parseKept(data)
		if err != nil || k.Data == nil {
			return
		}
		again, err := parseKept(encodeKept(k.Serial, k.Data))
		if err != nil || !bytes.Equal(again.Data, k.Data) || again.Serial != k.Serial {
			t.Errorf("%v", err)
		}
	})
}
