package signing

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// encoded returns a request as Envoy sends it, with its node, which is not read.
func encoded(said request) []byte {
	message := field(nil, 1, []byte("a node of many kilobytes"))
	if said.kind != "" {
		message = field(message, requestType, []byte(said.kind))
	}
	for _, each := range said.subscribe {
		message = field(message, requestSubscribe, []byte(each))
	}
	for _, each := range said.unsubscribe {
		message = field(message, requestUnsubscribe, []byte(each))
	}
	message = field(message, 5, field(field(nil, 1, []byte("a.test")), 2, []byte("version"))) // initial_resource_versions
	if said.nonce != "" {
		message = field(message, requestNonce, []byte(said.nonce))
	}
	if said.rejected {
		status := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3)
		message = field(message, requestError, field(status, 2, []byte(said.reason)))
	}
	return message
}

// answer is what Envoy reads from a response.
type answer struct {
	name, version, nonce string
	chain, key           []byte // of a certificate
	removed              bool
}

func (a answer) isRemoval() bool { return a.removed }

func parseAnswer(t testing.TB, message []byte) (found answer) {
	t.Helper()
	each := func(message []byte, number protowire.Number) (content []byte) {
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
	if kind := string(each(message, responseType)); kind != secretType {
		t.Fatalf("the response is of type %q", kind)
	}
	found.nonce = string(each(message, responseNonce))
	resource := each(message, responseResources)
	if resource == nil {
		found.name, found.removed = string(each(message, responseRemoved)), true
		return found
	}
	found.name, found.version = string(each(resource, resourceName)), string(each(resource, resourceVersion))
	content := each(resource, resourceContent)
	secret := each(content, 2)
	if string(each(content, 1)) != secretType || string(each(secret, 1)) != found.name {
		t.Fatal("the resource is no secret, or has another name")
	}
	certificate := each(secret, 2)
	found.chain, found.key = each(each(certificate, 1), 2), each(each(certificate, 2), 2)
	return found
}

// A request is read in full, whatever else is in it.
func TestParseRequest(t *testing.T) {
	for what, said := range map[string]request{
		"nothing":     {},
		"the first":   {kind: secretType, subscribe: []string{"a.test", "b.test"}},
		"an answer":   {kind: secretType, nonce: "7"},
		"a rejection": {kind: secretType, nonce: "7", rejected: true, reason: "no certificate"},
		"everything":  {secretType, []string{""}, []string{"c.test"}, "8", true, ""},
	} {
		if found, err := parseRequest(encoded(said)); err != nil || !reflect.DeepEqual(found, said) {
			t.Errorf("%s: %v, %v", what, found, err)
		}
	}
	for _, message := range []string{"\x1a", "\x1a\x05abc", "\x3a\x01\xff", "\x0f", strings.Repeat("\xff", 12)} {
		if found, err := parseRequest([]byte(message)); !errors.Is(err, errMalformed) {
			t.Errorf("%x: %v, %v", message, found, err)
		}
	}
}
