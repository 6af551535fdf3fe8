//! Things by small numbers of their own, found without hashing.

/// Things by number. The number of one that was removed is given again.
#[derive(Debug)]
pub(super) struct Table<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Keeps a thing; returns its number.
    pub fn insert(&mut self, thing: T) -> u32 {
        if let Some(id) = self.free.pop()
            && let Some(place) = self.places.get_mut(id as usize)
        {
            *place = Some(thing);
            return id;
        }
        self.places.push(Some(thing));
        u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
    }
    pub fn get(&self, id: u32) -> Option<&T> {
        self.places.get(id as usize)?.as_ref()
    }
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.places.get_mut(id as usize)?.as_mut()
    }
    pub fn remove(&mut self, id: u32) -> Option<T> {
        let thing = self.places.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(thing)
    }
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        for id in (0..).take(self.places.len()).filter(|id| !keep(*id)) {
            self.remove(id);
        }
    }
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(id, place)| Some((id, place.as_ref()?)))
    }
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().flatten()
    }
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
