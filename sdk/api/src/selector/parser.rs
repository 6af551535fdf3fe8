//! The parser of label selectors' query-string form.

use super::{Operator, Requirement, validate_key};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    Word,
}

/// Parses a selector; the empty text has no requirements.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut p = Parser { rest: text };
    let mut requirements = Vec::new();
    loop {
        match p.peek() {
            (Token::Word | Token::Not, _) => {}
            (Token::End, _) => return Ok(requirements),
            (_, found) => return Err(format!("found '{found}', expected: !, identifier, or 'end of string'")),
        }
        requirements.push(p.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
        match p.next() {
            (Token::End, _) => return Ok(requirements),
            (Token::Comma, _) => match p.peek() {
                (Token::Word | Token::Not, _) => {}
                (_, found) => return Err(format!("found '{found}', expected: identifier after ','")),
            },
            (_, found) => return Err(format!("found '{found}', expected: ',' or 'end of string'")),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> (Token, &'a str) {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let symbols = [
            ("==", Token::DoubleEquals),
            ("!=", Token::NotEquals),
            ("=", Token::Equals),
            ("!", Token::Not),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
            (">", Token::Greater),
            ("<", Token::Less),
        ];
        let (token, length) = match symbols.iter().find(|(symbol, _)| text.starts_with(symbol)) {
            Some((symbol, token)) => (*token, symbol.len()),
            None if text.is_empty() => (Token::End, 0),
            None => (Token::Word, text.find(|c| "=!(),><\t\r\n ".contains(c)).unwrap_or(text.len())),
        };
        let (found, rest) = text.split_at(length);
        self.rest = rest;
        (token, found)
    }

    fn peek(&self) -> (Token, &'a str) {
        Parser { rest: self.rest }.next()
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut negated = false;
        let (mut token, mut key) = self.next();
        if token == Token::Not {
            negated = true;
            (token, key) = self.next();
        }
        if token != Token::Word {
            return Err(format!("found '{key}', expected: identifier"));
        }
        validate_key(key)?;
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, vec![]);
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, vec![]);
        }
        let (operator, exact) = match self.next() {
            (Token::Word, "in") => (Operator::In, false),
            (Token::Word, "notin") => (Operator::NotIn, false),
            (Token::Equals | Token::DoubleEquals, _) => (Operator::Equals, true),
            (Token::NotEquals, _) => (Operator::NotEquals, true),
            (Token::Greater, _) => (Operator::GreaterThan, true),
            (Token::Less, _) => (Operator::LessThan, true),
            (_, found) => return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = if exact { vec![self.exact_value()?] } else { self.values()? };
        Requirement::new(key, operator, values)
    }

    /// The value after `=`; nothing there is the empty value.
    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Word, value) => Ok(value.into()),
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            (Token::Open, _) => {}
            (_, found) => return Err(format!("found '{found}' expected: '('")),
        }
        let mut values = Vec::new();
        if self.peek().0 == Token::Close {
            self.next();
            return Ok(values);
        }
        loop {
            if self.peek().0 == Token::Word {
                values.push(self.next().1.to_string());
            } else {
                values.push(String::new());
            }
            match self.next() {
                (Token::Comma, _) => {}
                (Token::Close, _) => return Ok(values),
                (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
            }
        }
    }
}
