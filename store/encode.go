package store

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// itemPrefix names the encoding's version.
const itemPrefix = "bloq1:"

// wireItem is an item inside its encoding. []byte is base64 in JSON.
type wireItem struct {
	Origin        string    `json:"origin"`
	RefreshToken  []byte    `json:"refresh_token,omitempty"`
	ClientID      string    `json:"client_id,omitempty"`
	ClientSecret  []byte    `json:"client_secret,omitempty"`
	AccountToken  []byte    `json:"account_token,omitempty"`
	AccountExpiry time.Time `json:"account_expiry,omitzero"`
	Source        string    `json:"source,omitempty"`
}

// encodeItem makes one line of printable ASCII. gnome-keyring has lost a whole
// collection over a newline in a secret, and others cut at NUL.
func encodeItem(i Item) ([]byte, error) {
	plain, err := json.Marshal(wireItem{
		Origin: i.Origin, RefreshToken: i.RefreshToken.Reveal(), ClientSecret: i.ClientSecret.Reveal(),
		AccountToken: i.AccountToken.Reveal(), AccountExpiry: i.AccountExpiry, ClientID: i.ClientID, Source: i.Source,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding item: %w", err)
	}
	defer clear(plain)
	return base64.RawStdEncoding.AppendEncode([]byte(itemPrefix), plain), nil
}

// decodeItem reads what encodeItem wrote and nothing else. Its errors hold
// nothing of b.
func decodeItem(b []byte) (Item, error) {
	body, ok := bytes.CutPrefix(b, []byte(itemPrefix))
	if !ok {
		return Item{}, fmt.Errorf("%w: it is not of this version", ErrDamaged)
	}
	// The decoder itself skips newlines and stray trailing bits.
	plain, err := base64.RawStdEncoding.Strict().AppendDecode(nil, body)
	if err != nil || bytes.ContainsAny(body, "\r\n") {
		return Item{}, fmt.Errorf("%w: its encoding is broken", ErrDamaged)
	}
	defer clear(plain)
	var w wireItem
	d := json.NewDecoder(bytes.NewReader(plain))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil || d.More() {
		return Item{}, fmt.Errorf("%w: its content is broken", ErrDamaged)
	}
	return Item{
		Origin: w.Origin, RefreshToken: NewSecret(w.RefreshToken), ClientSecret: NewSecret(w.ClientSecret),
		AccountToken: NewSecret(w.AccountToken), AccountExpiry: w.AccountExpiry, ClientID: w.ClientID, Source: w.Source,
	}, nil
}
