package signing

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// encoded returns a request in Envoy's form, with its node, which is ignored.
func encoded(asked request) []byte {
	message := field(nil, 1, []byte("a node of many kilobytes"))
	if asked.kind != "" {
		message = field(message, requestType, []byte(asked.kind))
	}
	for _, name := range asked.subscribe {
		message = field(message, requestSubscribe, []byte(name))
	}
	for _, name := range asked.unsubscribe {
		message = field(message, requestUnsubscribe, []byte(name))
	}
	message = field(message, 5, field(field(nil, 1, []byte("a.test")), 2, []byte("version"))) // initial_resource_versions
	if asked.nonce != "" {
		message = field(message, requestNonce, []byte(asked.nonce))
	}
	if asked.rejected {
		status := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3)
		message = field(message, requestError, field(status, 2, []byte(asked.reason)))
	}
	return message
}

// answer is Envoy's reading of a response.
type answer struct {
	name, version, nonce string
	chain, key           []byte // of a certificate
	removed              bool
}

func (a answer) isRemoval() bool { return a.removed }

func parseAnswer(t testing.TB, message []byte) (parsed answer) {
	t.Helper()
	consume := func(message []byte, number protowire.Number) (content []byte) {
		if err := fields(message, func(its protowire.Number, value []byte) error {
			if its == number {
				content = value
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return content
	}
	if kind := string(consume(message, responseType)); kind != secretType {
		t.Fatalf("the response is of type %q", kind)
	}
	parsed.nonce = string(consume(message, responseNonce))
	resource := consume(message, responseResources)
	if resource == nil {
		parsed.name, parsed.removed = string(consume(message, responseRemoved)), true
		return parsed
	}
	parsed.name, parsed.version = string(consume(resource, resourceName)), string(consume(resource, resourceVersion))
	content := consume(resource, resourceContent)
	secret := consume(content, 2)
	if string(consume(content, 1)) != secretType || string(consume(secret, 1)) != parsed.name {
		t.Fatal("the resource is no secret, or has another name")
	}
	certificate := consume(secret, 2)
	parsed.chain, parsed.key = consume(consume(certificate, 1), 2), consume(consume(certificate, 2), 2)
	return parsed
}

// A request is read completely, with any further fields.
func TestParseRequest(t *testing.T) {
	for what, message := range map[string]request{
		"nothing":     {},
		"the first":   {kind: secretType, subscribe: []string{"a.test", "b.test"}},
		"an answer":   {kind: secretType, nonce: "7"},
		"a rejection": {kind: secretType, nonce: "7", rejected: true, reason: "no certificate"},
		"everything":  {secretType, []string{""}, []string{"c.test"}, "8", true, ""},
	} {
		if got, err := parseRequest(encoded(message)); err != nil || !reflect.DeepEqual(got, message) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	for _, message := range []string{"\x1a", "\x1a\x05abc", "\x3a\x01\xff", "\x0f", strings.Repeat("\xff", 12)} {
		if got, err := parseRequest([]byte(message)); !errors.Is(err, errMalformed) {
			t.Errorf("%x: %v, %v", message, got, err)
		}
	}
}
