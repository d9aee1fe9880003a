package policy

import "clawker-fw/internal/hotfile"

// Source holds the current list and follows its file.
type Source struct{ *hotfile.File[*List] }

// Open creates a source and reads its list.
func Open(path string) (*Source, error) {
	file := hotfile.New(path, Parse)
	if err := file.Load(); err != nil {
		return nil, err
	}
	return &Source{file}, nil
}

// List returns the current list.
func (s *Source) List() *List { return s.Value() }
