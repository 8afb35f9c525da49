//! Pages of lists: a cursor is the place of a job or a record in the order of creation.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde_json::{Value, json};

use super::refusal::Refusal;

/// A place in a list, and which way to go from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Whether the page is the one before the place.
    pub is_back: bool,
    /// The time of creation.
    pub time: i64,
    /// The id.
    pub id: String,
}

impl Cursor {
    /// The cursor in a query. `None`: the first page.
    ///
    /// # Errors
    /// The text is no cursor.
    pub fn of(query: &HashMap<String, String>) -> Result<Option<Cursor>, Refusal> {
        let Some(text) = query.get("cursor") else { return Ok(None) };
        let cursor = Cursor::parse(text);
        cursor
            .map(Some)
            .ok_or_else(|| Refusal::body("cursor", "expected the cursor of a page that was answered"))
    }

    fn parse(text: &str) -> Option<Cursor> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.splitn(3, ' ');
        let is_back = match parts.next()? {
            "after" => false,
            "before" => true,
            _ => return None,
        };
        Some(Cursor { is_back, time: parts.next()?.parse().ok()?, id: parts.next()?.into() })
    }

    fn text(&self) -> String {
        let way = if self.is_back { "before" } else { "after" };
        URL_SAFE_NO_PAD.encode(format!("{way} {} {}", self.time, self.id))
    }
}

/// Up to a page's number of items, and what lies around them.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// The page before.
    pub previous: Option<Cursor>,
    /// The page behind.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// The page of `found`: up to `size` + 1 items from the cursor on, in the order of the way that the cursor goes.
    pub fn new(
        cursor: Option<&Cursor>,
        mut found: Vec<T>,
        size: usize,
        place: impl Fn(&T) -> (i64, String),
    ) -> Page<T> {
        let has_more = found.len() > size;
        found.truncate(size);
        let is_back = cursor.is_some_and(|cursor| cursor.is_back);
        if is_back {
            found.reverse();
        }
        let to = |item: Option<&T>, is_back: bool| {
            let (time, id) = place(item?);
            Some(Cursor { is_back, time, id })
        };
        // Where one comes from there is a page, even if it has become empty.
        let (has_previous, has_next) = match cursor {
            None => (false, has_more),
            Some(_) if is_back => (has_more, true),
            Some(_) => (true, has_more),
        };
        Page {
            previous: to(found.first(), true).filter(|_| has_previous),
            next: to(found.last(), false).filter(|_| has_next),
            items: found,
        }
    }

    /// The page out of the whole list.
    pub fn of_all(
        cursor: Option<&Cursor>,
        all: Vec<T>,
        size: usize,
        place: impl Fn(&T) -> (i64, String),
    ) -> Page<T> {
        let Some(cursor) = cursor else {
            return Page::new(None, all.into_iter().take(size + 1).collect(), size, place);
        };
        let (time, id) = (cursor.time, &cursor.id);
        let at = all.iter().position(|item| place(item) == (time, id.clone()));
        let found: Vec<T> = match (at, cursor.is_back) {
            // The item of the cursor was deleted meanwhile: the list begins anew.
            (None, _) => return Page::new(None, all.into_iter().take(size + 1).collect(), size, place),
            (Some(at), true) => all.into_iter().take(at).rev().take(size + 1).collect(),
            (Some(at), false) => all.into_iter().skip(at + 1).take(size + 1).collect(),
        };
        Page::new(Some(cursor), found, size, place)
    }

    /// The page as JSON, whose links lead to `url` with the rest of the query.
    pub fn json(&self, url: &str, query: &HashMap<String, String>, results: Vec<Value>) -> Value {
        let link = |cursor: &Option<Cursor>| cursor.as_ref().map(|cursor| link(url, query, cursor));
        json!({ "previous": link(&self.previous), "next": link(&self.next), "results": results })
    }
}

fn link(url: &str, query: &HashMap<String, String>, cursor: &Cursor) -> String {
    let mut pairs: Vec<(&str, &str)> =
        query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    pairs.retain(|(name, _)| *name != "cursor");
    pairs.sort_unstable();
    let text = cursor.text();
    pairs.insert(0, ("cursor", &text));
    match reqwest::Url::parse_with_params(url, &pairs) {
        Ok(link) => link.into(),
        Err(_) => format!("{url}?cursor={text}"),
    }
}

/// A time in a query, in milliseconds since 1970. `None`: not given.
///
/// # Errors
/// The text is no time.
pub fn time(query: &HashMap<String, String>, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(text) = query.get(name) else { return Ok(None) };
    // A plus sign in a query is a space, unless it was escaped.
    let parsed = DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
    let wrong =
        |_| Refusal::body(name, format!("expected a time such as 2026-01-31T12:00:00Z, found {text:?}"));
    parsed.map(|time| Some(time.timestamp_millis())).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(all: &[i64], cursor: Option<&Cursor>, size: usize) -> Page<i64> {
        let mut found: Vec<i64> = match cursor {
            None => all.to_vec(),
            Some(cursor) if cursor.is_back => {
                all.iter().copied().filter(|n| *n > cursor.time).rev().collect()
            }
            Some(cursor) => all.iter().copied().filter(|n| *n < cursor.time).collect(),
        };
        found.truncate(size + 1);
        Page::new(cursor, found, size, |n| (*n, format!("id {n}")))
    }

    /// Protects whoever goes through a list: forward and back, each item comes once, and the ends are ends.
    #[test]
    fn there_and_back() {
        let all: Vec<i64> = (0..7).rev().collect();
        let (mut cursor, mut seen) = (None, Vec::new());
        let last = loop {
            let page = pages(&all, cursor.as_ref(), 3);
            seen.extend(page.items.clone());
            match page.next.clone() {
                Some(next) => cursor = Cursor::parse(&next.text()),
                None => break page,
            }
        };
        assert_eq!(seen, all);
        let middle = pages(&all, last.previous.as_ref(), 3);
        assert_eq!((middle.items.as_slice(), middle.next.is_some()), (&[3, 2, 1][..], true));
        let first = pages(&all, middle.previous.as_ref(), 3);
        assert_eq!((first.items.as_slice(), &first.previous), (&[6, 5, 4][..], &None));
        assert!(pages(&all[..3], None, 3).next.is_none());
        assert_eq!(Cursor::parse("cD0x"), None);
    }

    /// Protects filters: the link to the next page has them too.
    #[test]
    fn links_have_the_query() {
        let query =
            HashMap::from([("a b".to_owned(), "c&d".to_owned()), ("cursor".to_owned(), "old".to_owned())]);
        let cursor = Cursor { is_back: false, time: 5, id: "x y".into() };
        let link = link("http://h/v1/predictions", &query, &cursor);
        assert_eq!(link, format!("http://h/v1/predictions?cursor={}&a+b=c%26d", cursor.text()));
        assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
    }
}
