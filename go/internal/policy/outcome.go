package policy

import "context"

// Outcome is what the policy did with one query, for a plugin that comes before it.
type Outcome struct {
	Answered bool   // whether there was a query of somebody else than this container
	Reason   string // why it was refused, or "" if it was allowed
	Code     int    // the response code
	Answers  int    // the number of answer records
}

// Allowed reports whether the query was allowed.
func (o Outcome) Allowed() bool { return o.Reason == "" }

type outcomeKey struct{}

// WithOutcome returns a context for one query, and the outcome that the policy fills in.
func WithOutcome(ctx context.Context) (context.Context, *Outcome) {
	outcome := new(Outcome)
	return context.WithValue(ctx, outcomeKey{}, outcome), outcome
}

// tell fills in the outcome if somebody wants to know it.
func tell(ctx context.Context, outcome Outcome) {
	if wanted, is := ctx.Value(outcomeKey{}).(*Outcome); is {
		*wanted = outcome
	}
}
