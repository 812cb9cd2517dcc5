//! `$filter`: read by a small parser, typed against the resource, and asked of records.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use super::resource::{CAN_VIEW, Kind, MODIFIED, Resource, SEQUENCE};
use super::world::Record;
use crate::clock::Timestamp;

/// What the producer refuses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    pub(super) no_key_order: bool,
    pub(super) no_in: bool,
}

/// A value to compare with. Everything that counts is read as a number: stamps as microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Whole(i64),
    Decimal(f64),
    Text(String),
    Stamp(i64),
    Date(String),
}

impl Literal {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    Or(Box<Filter>, Box<Filter>),
    And(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
    Compare(String, Operator, Literal),
    In(String, Vec<Literal>),
}

impl Filter {
    pub(super) fn holds(&self, resource: Resource, record: &Record) -> bool {
        match self {
            Self::Or(one, other) => one.holds(resource, record) || other.holds(resource, record),
            Self::And(one, other) => one.holds(resource, record) && other.holds(resource, record),
            Self::Not(inner) => !inner.holds(resource, record),
            Self::In(field, among) => among.iter().any(|literal| compare(resource, record, field, literal) == Some(Ordering::Equal)),
            Self::Compare(field, operator, literal) => {
                let ordering = compare(resource, record, field, literal);
                match operator {
                    Operator::Eq => ordering == Some(Ordering::Equal),
                    Operator::Ne => ordering != Some(Ordering::Equal),
                    Operator::Gt => ordering == Some(Ordering::Greater),
                    Operator::Ge => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
                    Operator::Lt => ordering == Some(Ordering::Less),
                    Operator::Le => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
                }
            }
        }
    }

    /// A sequence below which nothing holds, so that the log need not be read from its beginning.
    pub(super) fn sequence_from(&self) -> u64 {
        let number = |literal: &Literal| match literal {
            Literal::Whole(number) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        match self {
            Self::And(one, other) => one.sequence_from().max(other.sequence_from()),
            Self::Compare(field, Operator::Gt | Operator::Ge | Operator::Eq, literal) if field == SEQUENCE => number(literal),
            _ => 0,
        }
    }

    /// The keys beside which nothing holds, where it names them, so that not every record need be looked at.
    pub(super) fn keys(&self, key: &str) -> Option<BTreeSet<&str>> {
        match self {
            Self::And(one, other) => one.keys(key).or_else(|| other.keys(key)),
            Self::In(field, among) if field == key => among.iter().map(Literal::text).collect(),
            Self::Compare(field, Operator::Eq, literal) if field == key => Some(literal.text().into_iter().collect()),
            _ => None,
        }
    }

    /// How often a field is compared for equality.
    pub(super) fn equals(&self, name: &str) -> usize {
        match self {
            Self::Or(one, other) | Self::And(one, other) => one.equals(name) + other.equals(name),
            Self::Not(inner) => inner.equals(name),
            Self::Compare(field, operator, _) => usize::from(field == name && *operator == Operator::Eq),
            Self::In(..) => 0,
        }
    }

    /// How many `or` it has.
    pub(super) fn n_or(&self) -> usize {
        match self {
            Self::Or(one, other) => 1 + one.n_or() + other.n_or(),
            Self::And(one, other) => one.n_or() + other.n_or(),
            Self::Not(inner) => inner.n_or(),
            _ => 0,
        }
    }
}

fn compare(resource: Resource, record: &Record, field: &str, literal: &Literal) -> Option<Ordering> {
    // Of all that is shown this alone stands in no document.
    let can_view = Value::from(record.hidden_us.is_none());
    let value = if field == CAN_VIEW { &can_view } else { record.document.get(field).unwrap_or(&Value::Null) };
    match literal {
        Literal::Null => value.is_null().then_some(Ordering::Equal),
        Literal::Bool(wanted) => Some(value.as_bool()?.cmp(wanted)),
        Literal::Whole(wanted) => match value.as_i64() {
            Some(number) => Some(number.cmp(wanted)),
            None => value.as_f64()?.partial_cmp(&(*wanted as f64)),
        },
        Literal::Decimal(wanted) => value.as_f64()?.partial_cmp(wanted),
        Literal::Text(wanted) | Literal::Date(wanted) => Some(value.as_str()?.cmp(wanted)),
        Literal::Stamp(wanted) if field == MODIFIED && resource != Resource::EntityEvent => Some(record.modified_us.cmp(wanted)),
        Literal::Stamp(wanted) => Some(Timestamp::parse(value.as_str()?)?.0.cmp(wanted)),
    }
}

/// Reads a filter; what is wrong with it.
pub(super) fn parse(resource: Resource, text: &str, manners: Manners) -> Result<Filter, String> {
    let mut parser = Parser { resource, manners, tokens: tokens(text)?, at: 0 };
    let filter = parser.or(0)?;
    match parser.peek() {
        None => Ok(filter),
        Some(token) => Err(format!("nothing is expected before {token:?}")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(sign) = rest.next() {
        match sign {
            ' ' | '\t' => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            ',' => tokens.push(Token::Comma),
            '\'' => {
                let mut held = String::new();
                loop {
                    match rest.next() {
                        // A quote is written twice.
                        Some('\'') if rest.peek() == Some(&'\'') => {
                            rest.next();
                            held.push('\'');
                        }
                        Some('\'') => break,
                        Some(sign) => held.push(sign),
                        None => return Err("a text has no end".to_owned()),
                    }
                }
                tokens.push(Token::Text(held));
            }
            _ => {
                let mut word = String::from(sign);
                while let Some(sign) = rest.next_if(|sign| !matches!(sign, ' ' | '\t' | '(' | ')' | ',' | '\'')) {
                    word.push(sign);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

/// Brackets deeper than this are refused.
const DEPTH_MAX: usize = 50;

struct Parser {
    resource: Resource,
    manners: Manners,
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<Token, String> {
        let token = self.peek().cloned().ok_or_else(|| "the filter ends too early".to_owned())?;
        self.at += 1;
        Ok(token)
    }

    fn takes(&mut self, token: &Token) -> bool {
        let is = self.peek() == Some(token);
        self.at += usize::from(is);
        is
    }

    fn word(&mut self, word: &str) -> bool {
        self.takes(&Token::Word(word.to_owned()))
    }

    fn or(&mut self, depth: usize) -> Result<Filter, String> {
        let mut filter = self.and(depth)?;
        while self.word("or") {
            filter = Filter::Or(Box::new(filter), Box::new(self.and(depth)?));
        }
        Ok(filter)
    }

    fn and(&mut self, depth: usize) -> Result<Filter, String> {
        let mut filter = self.one(depth)?;
        while self.word("and") {
            filter = Filter::And(Box::new(filter), Box::new(self.one(depth)?));
        }
        Ok(filter)
    }

    fn one(&mut self, depth: usize) -> Result<Filter, String> {
        if depth > DEPTH_MAX {
            return Err("the filter is nested too deeply".to_owned());
        }
        if self.word("not") {
            return Ok(Filter::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes(&Token::Open) {
            let filter = self.or(depth + 1)?;
            return if self.takes(&Token::Close) { Ok(filter) } else { Err("a bracket is not closed".to_owned()) };
        }
        let Token::Word(field) = self.next()? else { return Err("the name of a field is expected".to_owned()) };
        let resource = self.resource;
        let kind = resource.kind(&field).ok_or_else(|| format!("{} has no field {field}", resource.name()))?;
        let operator = match self.next()? {
            Token::Word(word) if word == "in" => return self.among(field, kind),
            Token::Word(word) => operator(&word).ok_or_else(|| format!("{word} is not supported"))?,
            _ => return Err("an operator is expected".to_owned()),
        };
        if self.manners.no_key_order && kind == Kind::Text && !matches!(operator, Operator::Eq | Operator::Ne) {
            return Err("texts can only be compared by eq and ne".to_owned());
        }
        let token = self.next()?;
        Ok(Filter::Compare(field, operator, literal(token, kind)?))
    }

    fn among(&mut self, field: String, kind: Kind) -> Result<Filter, String> {
        if self.manners.no_in {
            return Err("in is not supported".to_owned());
        }
        if !self.takes(&Token::Open) {
            return Err("a list is expected behind in".to_owned());
        }
        let mut among = Vec::new();
        loop {
            let token = self.next()?;
            among.push(literal(token, kind)?);
            match self.next()? {
                Token::Comma => {}
                Token::Close => return Ok(Filter::In(field, among)),
                _ => return Err("a comma is expected".to_owned()),
            }
        }
    }
}

fn operator(word: &str) -> Option<Operator> {
    Some(match word {
        "eq" => Operator::Eq,
        "ne" => Operator::Ne,
        "gt" => Operator::Gt,
        "ge" => Operator::Ge,
        "lt" => Operator::Lt,
        "le" => Operator::Le,
        _ => return None,
    })
}

fn literal(token: Token, kind: Kind) -> Result<Literal, String> {
    let wrong = |text: &str| Err(format!("{text} is no {}", kind.edm()));
    match (token, kind) {
        (Token::Text(text), Kind::Text) => Ok(Literal::Text(text)),
        (Token::Word(word), _) if word == "null" => Ok(Literal::Null),
        (Token::Word(word), Kind::Bool) => word.parse().map_or_else(|_| wrong(&word), |is| Ok(Literal::Bool(is))),
        (Token::Word(word), Kind::Whole | Kind::Long | Kind::Decimal) => match (word.parse(), word.parse()) {
            (Ok(number), _) => Ok(Literal::Whole(number)),
            (_, Ok(number)) => Ok(Literal::Decimal(number)),
            _ => wrong(&word),
        },
        (Token::Word(word), Kind::Stamp) => Timestamp::parse(&word).map_or_else(|| wrong(&word), |at| Ok(Literal::Stamp(at.0))),
        (Token::Word(word), Kind::Date) if word.parse::<jiff::civil::Date>().is_ok() => Ok(Literal::Date(word)),
        (Token::Word(text) | Token::Text(text), _) => wrong(&text),
        _ => Err("a value is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        let mut record = Record::default();
        record.set("ListingKey", "O'Neil");
        record.set("ListPrice", 100.5);
        record.set("BedroomsTotal", 3);
        record.set("LivingArea", Value::Null);
        record.set("OnMarketDate", "2026-03-01");
        record.set("InternetEntireListingDisplayYN", true);
        record.touch(1_767_225_600_123_000);
        let filter = parse(Resource::Property, text, Manners::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
        filter.holds(Resource::Property, &record)
    }

    #[test]
    fn filters_mean_what_odata_says() {
        for (text, wanted) in [
            ("ListingKey eq 'O''Neil'", true),
            ("ListingKey gt 'O'", true),
            ("ListingKey in ('x','O''Neil')", true),
            ("ListPrice gt 100 and BedroomsTotal le 3", true),
            ("ListPrice lt 100 or BedroomsTotal eq 4", false),
            ("not (ListPrice lt 100 or BedroomsTotal eq 4)", true),
            ("BedroomsTotal eq 4 and BedroomsTotal eq 4 or BedroomsTotal eq 3", true),
            ("LivingArea eq null", true),
            ("LivingArea gt 1", false),
            ("InternetEntireListingDisplayYN eq true", true),
            ("OnMarketDate ge 2026-03-01", true),
            ("ModificationTimestamp ge 2026-01-01T00:00:00.123Z", true),
            ("ModificationTimestamp gt 2026-01-01T01:00:00.123+01:00", false),
        ] {
            assert_eq!(holds(text), wanted, "{text}");
        }
    }

    #[test]
    fn keys_are_named_only_where_nothing_else_can_hold() {
        let keys = |text: &str| {
            let filter = parse(Resource::Property, text, Manners::default()).expect("a filter");
            filter.keys("ListingKey").map(|keys| keys.into_iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(keys("ListingKey in ('b','a','b')").as_deref(), Some("a b"));
        assert_eq!(keys("ListPrice gt 1 and ListingKey eq 'O''Neil'").as_deref(), Some("O'Neil"));
        for text in ["ListingKey gt 'a'", "not (ListingKey eq 'a')", "ListingKey eq 'a' or ListPrice gt 1", "City in ('a')"] {
            assert_eq!(keys(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in [
            "",
            "Nope eq 1",
            "ListPrice eq",
            "ListPrice eq 'x'",
            "ListingKey eq 1",
            "(ListPrice eq 1",
            "ListPrice has 1",
            "ListPrice eq 1 1",
        ] {
            assert!(parse(Resource::Property, text, Manners::default()).is_err(), "{text}");
        }
        let manners = Manners { no_key_order: true, no_in: true };
        assert!(parse(Resource::Property, "ListingKey gt 'a'", manners).is_err());
        assert!(parse(Resource::Property, "ListingKey in ('a')", manners).is_err());
        assert!(parse(Resource::Property, "ListingKey eq 'a'", manners).is_ok());
    }
}
