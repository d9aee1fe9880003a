package serving

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
)

// value is a JSON value: an object or array with its members, or the text of anything else. It refers to the text that
// it was read from: with thousands of rules Envoy dumps many megabytes, and maps take several times as long.
type value struct {
	kind    byte // '{' or '[', or 0
	text    []byte
	members []member
}

// member is an element of an array, or a member of an object, which has a key: its text, with the quotes.
type member struct {
	key   []byte
	value value
}

// field returns a member of an object, if it has it. The key must have no character that JSON escapes.
func (v value) field(key string) (value, bool) {
	for _, each := range v.members {
		if v.kind == '{' && string(each.key[1:len(each.key)-1]) == key {
			return each.value, true
		}
	}
	return value{}, false
}

// write appends the canonical form: without spaces, and with sorted keys.
func (v value) write(text *bytes.Buffer) {
	if v.kind == 0 {
		text.Write(v.text)
		return
	}
	if v.kind == '{' {
		slices.SortFunc(v.members, func(one, other member) int { return bytes.Compare(plain(one.key), plain(other.key)) })
	}
	text.WriteByte(v.kind)
	for position, each := range v.members {
		if position > 0 {
			text.WriteByte(',')
		}
		if v.kind == '{' {
			text.Write(each.key)
			text.WriteByte(':')
		}
		each.value.write(text)
	}
	text.WriteByte(v.kind + 2) // in ASCII, a bracket's counterpart is the next but one
}

// plain returns what a JSON string in its shortest form stands for.
func plain(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	_ = json.Unmarshal(quoted, &text) // it has been encoded by shortest
	return []byte(text)
}

var errNotJSON = errors.New("not JSON (RFC 8259)")

// deepest is more than anything that Envoy dumps: reading a value takes stack for each level.
const deepest = 1000

// readJSONText reads the text of one JSON value.
func readJSONText(text []byte) (value, error) {
	reader := jsonReader{rest: text}
	read, err := reader.value(0)
	if reader.next(); err == nil && len(reader.rest) > 0 {
		err = errNotJSON
	}
	return read, err
}

type jsonReader struct{ rest []byte }

// next skips white space, and returns the octet that follows, or 0 at the end.
func (r *jsonReader) next() byte {
	for len(r.rest) > 0 && (r.rest[0] == ' ' || r.rest[0] == '\n' || r.rest[0] == '\t' || r.rest[0] == '\r') {
		r.rest = r.rest[1:]
	}
	if len(r.rest) == 0 {
		return 0
	}
	return r.rest[0]
}

// take skips white space and one octet, if that is the next one.
func (r *jsonReader) take(octet byte) bool {
	if r.next() != octet || octet == 0 {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

func (r *jsonReader) value(depth int) (value, error) {
	first := r.next()
	if depth > deepest {
		return value{}, errNotJSON
	}
	if first == '"' {
		text, err := r.quoted()
		return value{text: text}, err
	}
	if first != '{' && first != '[' {
		return r.scalar()
	}
	read := value{kind: first}
	r.rest = r.rest[1:]
	if r.take(first + 2) {
		return read, nil
	}
	for {
		var each member
		var err error
		if first == '{' {
			if r.next() != '"' {
				return read, errNotJSON
			}
			if each.key, err = r.quoted(); err != nil || !r.take(':') {
				return read, errNotJSON
			}
		}
		if each.value, err = r.value(depth + 1); err != nil {
			return read, err
		}
		read.members = append(read.members, each)
		if r.take(first + 2) {
			return read, nil
		}
		if !r.take(',') {
			return read, errNotJSON
		}
	}
}

// scalar reads a number, true, false or null. It is kept as it is written.
func (r *jsonReader) scalar() (value, error) {
	end := bytes.IndexAny(r.rest, ",]} \n\t\r")
	if end < 0 {
		end = len(r.rest)
	}
	text := r.rest[:end]
	r.rest = r.rest[end:]
	if !json.Valid(text) {
		return value{}, errNotJSON
	}
	return value{text: text}, nil
}

// quoted reads a string, and returns it with its quotes in the shortest form. The next octet is the first quote.
func (r *jsonReader) quoted() ([]byte, error) {
	simple := true
	for position := 1; position < len(r.rest); position++ {
		switch octet := r.rest[position]; {
		case octet == '"':
			text := r.rest[:position+1]
			r.rest = r.rest[position+1:]
			if simple {
				return text, nil
			}
			return shortest(text)
		case octet == '\\':
			simple = false
			position++
		case octet < ' ' || octet >= 0x80:
			simple = false
		}
	}
	return nil, errNotJSON
}

// shortest encodes a string again, with no escapes but those that are necessary.
func shortest(quoted []byte) ([]byte, error) {
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return nil, errNotJSON
	}
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(text)
	return bytes.TrimSuffix(encoded.Bytes(), []byte("\n")), err
}

// canonical returns the digest of Envoy's resources in canonical form: ordered by name, as JSON without spaces and
// with sorted keys. clawker-fw writes its files in this form, so the digests of loaded and desired configuration can
// be compared.
func canonical(resources []value) string {
	name := func(resource value) []byte {
		if found, there := resource.field("name"); there && bytes.HasPrefix(found.text, []byte(`"`)) {
			return plain(found.text)
		}
		return nil
	}
	slices.SortFunc(resources, func(one, other value) int { return bytes.Compare(name(one), name(other)) })
	all := value{kind: '['}
	for _, each := range resources {
		all.members = append(all.members, member{value: each})
	}
	var text bytes.Buffer
	all.write(&text)
	sum := sha256.Sum256(text.Bytes())
	return hex.EncodeToString(sum[:])
}
