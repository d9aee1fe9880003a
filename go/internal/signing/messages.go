package signing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of Envoy's incremental discovery service that are needed, by the numbers of their fields
// (envoy/service/discovery/v3/discovery.proto, envoy/extensions/transport_sockets/tls/v3/{secret,common}.proto), in the
// frames of gRPC (PROTOCOL-HTTP2.md, "Length-Prefixed-Message").

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// Fields of a DeltaDiscoveryRequest.
const (
	requestType        = 2
	requestSubscribe   = 3
	requestUnsubscribe = 4
	requestNonce       = 6
	requestError       = 7
)

// Fields of a DeltaDiscoveryResponse, and of a Resource in it.
const (
	responseVersion   = 1
	responseResources = 2
	responseType      = 4
	responseNonce     = 5
	responseRemoved   = 6

	resourceVersion = 1
	resourceContent = 2
	resourceName    = 3
)

const (
	frameHead = 5

	// longestRequest is the largest message that is read. After a while without an answer Envoy repeats all names that
	// it waits for, each of 255 octets at most.
	longestRequest = 16 << 20
)

// request is what Envoy says: which names it wants from now on and which no more, and, with a nonce, whether it has
// accepted an answer.
type request struct {
	kind                   string
	subscribe, unsubscribe []string
	nonce                  string
	rejected               bool
	reason                 string // why it has rejected the answer with this nonce
}

var (
	errTooLong   = fmt.Errorf("a request has more than %d octets", longestRequest)
	errMalformed = errors.New("a request can't be read")
)

func readFrame(body io.Reader) ([]byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 {
		return nil, fmt.Errorf("%w: it is compressed", errMalformed)
	}
	if size > longestRequest {
		return nil, errTooLong
	}
	message := make([]byte, size)
	_, err := io.ReadFull(body, message)
	return message, err
}

func framed(message []byte) []byte {
	frame := make([]byte, frameHead, frameHead+len(message))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(message)))
	return append(frame, message...)
}

func parseRequest(message []byte) (request, error) {
	var found request
	err := fields(message, func(number protowire.Number, content []byte) error {
		switch number {
		case requestType:
			found.kind = string(content)
		case requestSubscribe:
			found.subscribe = append(found.subscribe, string(content))
		case requestUnsubscribe:
			found.unsubscribe = append(found.unsubscribe, string(content))
		case requestNonce:
			found.nonce = string(content)
		case requestError:
			found.rejected = true
			return fields(content, func(number protowire.Number, content []byte) error {
				if number == 2 { // google.rpc.Status.message
					found.reason = string(content)
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return request{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return found, nil
}

func fields(message []byte, each func(protowire.Number, []byte) error) error {
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		if size = protowire.ConsumeFieldValue(number, kind, message); size < 0 {
			return protowire.ParseError(size)
		}
		if kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(message)
			if err := each(number, content); err != nil {
				return err
			}
		}
		message = message[size:]
	}
	return nil
}

func tlsCertificate(name string, chain, key []byte) []byte {
	certificate := field(field(nil, 1, inline(chain)), 2, inline(key))
	return field(field(nil, 1, []byte(name)), 2, certificate)
}

func genericSecret(name, value string) []byte {
	return field(field(nil, 1, []byte(name)), 5, field(nil, 1, inline([]byte(value))))
}

// inline returns a DataSource with its inline_bytes.
func inline(content []byte) []byte { return field(nil, 2, content) }

// given returns the response that gives Envoy one resource. In a larger one, a resource that Envoy rejects would take all
// others with it.
func given(name, version, nonce string, secret []byte) []byte {
	content := field(field(nil, 1, []byte(secretType)), 2, secret) // google.protobuf.Any
	resource := field(field(field(nil, resourceVersion, []byte(version)), resourceContent, content), resourceName, []byte(name))
	return closed(field(field(nil, responseVersion, []byte(version)), responseResources, resource), nonce)
}

func removed(name, nonce string) []byte {
	return closed(field(nil, responseRemoved, []byte(name)), nonce)
}

func closed(response []byte, nonce string) []byte {
	return field(field(response, responseType, []byte(secretType)), responseNonce, []byte(nonce))
}

func field(message []byte, number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(message, number, protowire.BytesType), content)
}
